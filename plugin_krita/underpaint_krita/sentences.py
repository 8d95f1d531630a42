"""What the docker says about how things are, in words for artists. Errors have their own sentences."""

from __future__ import annotations

import dataclasses
from typing import Optional, Union

from ._vendor.underpaint_protocol.errors import ErrorInfo
from ._vendor.underpaint_protocol.messages import Model, Progress, Pulling, Status, Welcome

PHASES = {
    "loading": "Loading the model",
    "preparing": "Preparing the picture",
    "encoding": "Reading the prompt",
    "denoising": "Painting",
    "decoding": "Finishing the picture",
    "compositing": "Fitting it in",
}
TO_ACCEPT = " (to be accepted)"
MB, GB = 10**6, 10**9
CONNECTED_AGAIN = "Connected again; your picture goes on."
DRAINING = "Underpaint is being stopped. What it has begun goes on when it is started again."
FORGOTTEN = "A picture from before is lost: the daemon does not remember it."


def queue_place(position: int) -> str:
    """How many pictures go before the artist's own."""
    if position == 0:
        return "Yours is the next picture."
    return f"{position} picture{'s' if position > 1 else ''} before yours"


def progress(event: Progress, again: bool = False, lost: bool = False) -> str:
    """What is being done, and at which step; `again` if it was begun before, `lost` as in `once_more`."""
    steps = f", step {event.step} of {event.steps}" if event.phase == "denoising" and event.steps else ""
    why = "it was interrupted" if lost else "the painting process had stopped"
    return PHASES[event.phase] + steps + (f" (once more: {why})" if again else "")


def once_more(lost: bool) -> str:
    """A picture is begun again. If the connection was `lost` meanwhile, nobody here knows what stopped."""
    return f"The painting {'was interrupted' if lost else 'process stopped'}; trying once more."


def done(seconds: float, again: bool = False) -> str:
    """A picture is finished, of which the last attempt took so many seconds; `again` if it was not the first."""
    return f"Done. Painting took {seconds:.1f} s{' this time' if again else ''}."


def elsewhere(error: ErrorInfo, server: str) -> ErrorInfo:
    """`error` as it is told of a server that no daemon of this machine is."""
    if error.code != "unreachable":
        return error
    message = f"The server at {server} does not answer: it, or the tunnel to it, is not up."
    return dataclasses.replace(error, message=message, hint="Start what is missing there, or correct the address.")


def reconnecting(error: ErrorInfo, seconds: float, waiting: bool) -> str:
    """Why there is no connection, and when the next attempt is made; `waiting` is whether a picture is under way."""
    when = f"trying again in {seconds:.0f} s…" if seconds >= 1 else "trying again…"
    if not waiting:
        return f"{error.message} {when[0].upper()}{when[1:]}"
    if error.code == "disconnected":
        return f"The connection was lost. Your picture goes on; {when}"
    return f"{error.message} Your picture is not lost; {when}"


def worker(source: Union[Welcome, Status]) -> str:
    """How the process that paints is."""
    if isinstance(source, Status) and source.draining:
        return DRAINING
    state = source.worker
    device = f" on {state.device}" if state.device else ""
    return {
        "starting": "Underpaint is warming up…",
        "ready": f"Ready{device}.",
        "restarting": "Underpaint is starting again…",
        "failed": f"Underpaint cannot paint: {state.detail}.",
    }[state.state]


def size(count: int) -> str:
    """A number of bytes as disks and downloads count them: 1 GB is 1000 MB."""
    if count >= 10 * GB:
        return f"{count / GB:.0f} GB"
    if count >= GB:
        return f"{count / GB:.1f} GB"
    return f"{max(1, round(count / MB))} MB"


def in_the_list(model: Model) -> str:
    """A model's name, and what keeps it from painting at once."""
    if model.state == "absent":
        return f"{model.name} · {_to_fetch(model)}"
    return f"{model.name} · {_unusable(model)}" if model.state == "unfit" else model.name


def about(model: Model) -> str:
    """What there is to say of a model beside its name."""
    if model.state == "unfit":
        return f"{model.name} {_unusable(model)}."
    licence = f"Licence: {model.licence}{TO_ACCEPT if model.gated and model.state == 'absent' else ''}."
    licence = licence if model.licence else ""
    if model.state == "absent":
        return f"It has to be fetched first{f', {size(model.download)}' if model.download else ''}. {licence}".strip()
    return licence


def has_to_be_fetched(model: Model) -> str:
    """What it takes to have this model, or why it is not there."""
    missing = model.detail if model.detail and not model.download and not model.gated else _to_fetch(model)
    return f"{model.name} is not there yet: {missing}."


def to_accept_first(model: Model) -> Optional[str]:
    """What those want who made a model before they give it away; None if nothing."""
    if not model.gated:
        return None
    if "https://" in model.detail:
        return f"{model.detail[0].upper()}{model.detail[1:]}."
    return "Whoever fetches it has to accept its licence on the hub first; Fetch tells where."


def pulling(name: str, event: Pulling) -> str:
    """How far a model is, and how long it takes."""
    if not event.done and event.seconds_left is None:
        return f"Fetching {name}, {size(event.total)}…"
    left = f", {_time_left(event.seconds_left)} left" if event.seconds_left is not None else ""
    return f"Fetching {name}: {size(event.done)} of {size(event.total)}{left}"


def fetched(name: str) -> str:
    """A model has come."""
    return f"{name} was fetched and is ready."


def _to_fetch(model: Model) -> str:
    what = f"{size(model.download)} to fetch" if model.download else "to be fetched"
    if not model.licence:
        return f"{what}, its licence{TO_ACCEPT}" if model.gated else what
    return f"{what}, {model.licence}{TO_ACCEPT if model.gated else ''}"


def _unusable(model: Model) -> str:
    """Why a model cannot be chosen: for want of memory, or of something else."""
    return f"{'does not fit' if ' of memory' in model.detail else 'cannot be used'}: {model.detail}"


def _time_left(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


def kept(prompt: str, path: str) -> str:
    """Where a picture is whose document was not open when it came."""
    return f"{_picture(prompt)} was finished meanwhile. Its document is not open, so it is kept in {path}"


def in_its_layer(prompt: str) -> str:
    """A picture has come late, but in the right place."""
    return f"{_picture(prompt)} was finished meanwhile and is in a layer of its own now."


def not_kept(prompt: str, problem: str) -> str:
    """A picture could not be written into a file; the daemon still has it."""
    return f"{_picture(prompt)} could not be kept: {problem}. It is tried again when Krita is started again."


def _picture(prompt: str) -> str:
    line = " ".join(prompt.split())
    return f"The picture “{line if len(line) <= 40 else line[:39] + '…'}”" if line else "A picture"
