"""A worker at its jobs: from a request to the messages that answer it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from underpaint_protocol.errors import describe
from underpaint_protocol.geometry import working_size
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Cancelled, Done, Failed, Request, Result, Tile

from ..engine import cancel
from ..engine.denoise import Step
from ..engine.device import Device
from ..engine.ladder import Effort
from ..engine.library import Library, LoadedModel
from ..engine.lora import LoraRack
from ..engine.painting import Observer, Painting, paint
from ..engine.precision import Memory as MemoryChoice
from ..engine.precision import words_for
from ..imaging.depth import Pixels
from ..models.catalog import Entry, find_models
from ..models.suitability import reason_to_refuse
from .failures import Refused, explain
from .inbox import Job
from .interface import Ready
from .loras import files_of
from .outbox import Outbox
from .pictures import Pictures
from .previews import Previews
from .progress import JobProgress

log = logging.getLogger(__name__)

SEEDS = 1 << 63
"""Seeds are below this; after the last one comes the first."""
MOST_AREA = 4 << 20
"""Square pixels at which a picture is painted at most; what is larger is scaled up."""


class Worker:
    """Runs jobs, one after another, on one device."""

    def __init__(
        self, device: Device, roots: Sequence[Path], outbox: Outbox, memory: MemoryChoice | None = None
    ) -> None:
        self.device = device
        self._roots = roots
        self._outbox = outbox
        self._library = Library(device, memory)
        self._rack = LoraRack()
        self._library.residency.let_go = self._rack.let_go
        self._previews = Previews(outbox)
        self._introduced = ""

    def introduce(self, words: str | None = None) -> None:
        """Say what this worker runs on, and what it calculates and keeps weights in, if that was not said already.

        `words` are those of the model at hand; without, there is none yet.
        """
        memory, dtype = self._library.residency.memory, self._library.device.dtype
        device = f"{self.device.name}, {words or words_for(dtype, memory.storage(0, 0))}"
        if device != self._introduced:
            self._introduced = device
            self._outbox.send(Ready(device[:200]))

    def run(self, job: Job) -> None:
        """Run a job and send all that is to be said of it; the last message is `Done`, `Failed` or `Cancelled`.

        Raises `torch.AcceleratorError`, after that, if the device is in a state from which only a new process helps.
        """
        name, began = job.submit.job, time.monotonic()
        try:
            notices = self._paint(job)
        except cancel.Cancelled:
            self._end(Cancelled(name), began)  # Before half a model is let go of, which can take longer than all else.
        except Exception as error:  # whatever happens, the worker lives on and the server hears of it
            end = Failed(name, explain(error, self.device))
            lost = isinstance(error, torch.AcceleratorError)
            if not lost:
                self.device.release()
            self._end(end, began)
            if lost:
                raise
        else:
            self._end(Done(name, time.monotonic() - began, notices=notices), began)

    def _end(self, end: Done | Failed | Cancelled, began: float) -> None:
        self._previews.finish()
        # First, because whoever hears of the end may end this process.
        log.info("job %s: %s after %.2f s", end.job, type(end).__name__.lower(), time.monotonic() - began)
        self._outbox.send(end)

    def _paint(self, job: Job) -> tuple[str, ...]:
        """Paint, send what was painted, and return what the artist should know of it."""
        request, progress = job.submit.request, JobProgress(job, self._outbox)
        entry = self._entry(request.model)
        reason = reason_to_refuse(request, entry.model)
        if reason is not None:
            raise Refused(reason)
        pictures = Pictures(request, job.tiles)

        progress.report("loading")
        model = self._library.load(entry, lambda done: progress.report("loading", done), job.cancelled)
        progress.report("preparing")
        painting = _painting(request, model, pictures)

        def on_step(step: Step) -> None:
            if job.submit.previews:
                self._previews.show(job.submit.job, step.number, model.projection(step.x0))
            progress.report("denoising", step.number / step.total, step.number, step.total)

        notices = _notices_of_cuts(model, painting)
        observer = Observer(progress.report, on_step, notices.append)
        with self._wearing(model, job):
            painted = paint(model, painting, observer, job.cancelled)
        self.introduce(model.family.parts.words)
        for index, (seed, picture) in enumerate(zip(painting.seeds, painted, strict=True)):
            progress.report("compositing", index / len(painted))
            self._send(job, index, seed, pictures.finished(picture))
        progress.report("compositing", 1.0)
        return tuple(notice[:500] for notice in notices[:8])

    @contextmanager
    def _wearing(self, model: LoadedModel, job: Job) -> Iterator[None]:
        """Within this context the model wears the job's LoRAs, and no others."""
        parts, name, family = model.family.parts, model.description.name, model.description.family
        choices = files_of(job.submit.request.loras)
        attempt = partial(model.ladder.attempt, Effort("reading a LoRA"))
        with ExitStack() as stack:
            with cancel.cancellable_loading(job.cancelled):
                worn = stack.enter_context(self._rack.worn(name, family, parts, choices, attempt))
            parts.dress = worn.dress
            try:
                yield
            finally:
                parts.dress = None

    def _entry(self, model: str) -> Entry:
        entry = find_models(self._roots).get(model)
        if entry is None:
            raise Refused(describe("unknown_model", detail=model))
        return entry

    def _send(self, job: Job, index: int, seed: int, picture: Pixels) -> None:
        """Send a finished picture [H, W, 4], whose tiles lie on the grid on which the request's lie."""
        height, width, _ = picture.shape
        source = job.submit.request.image
        x, y = (source.x, source.y) if source is not None else (0, 0)
        data, depth = picture.astype(picture.dtype.newbyteorder("<")).tobytes(), 8 * picture.itemsize
        image, tiles = image_of(width, height, 4, data, x=x, y=y, depth=depth)
        for name, tile in tiles.items():
            self._outbox.send(Tile(name, len(tile), tile))
        self._outbox.send(Result(job.submit.job, index, seed, image))


def _painting(request: Request, model: LoadedModel, pictures: Pictures) -> Painting:
    """The request in the units of the model, with the model's own values where the request leaves them open."""
    defaults, family = model.description, model.family
    area = defaults.native_area
    sees_canvas = request.task == "edit" or (request.task == "inpaint" and family.sees_canvas)
    # What is edited is seen as a whole, and so is what lies beside the canvas or references, place for place.
    whole = request.task == "edit" or (family.ties_references and (sees_canvas or bool(request.references)))
    if request.full_size and (family.was_trained_large or not whole):
        area = max(area, min(request.width * request.height, MOST_AREA))
    size = working_size(request.width, request.height, area, defaults.size_multiple)
    return Painting(
        size=size,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        guidance=defaults.default_guidance if request.guidance is None else request.guidance,
        scheduler=request.scheduler or defaults.default_scheduler,
        steps=request.steps or defaults.default_steps,
        strength=request.strength,
        seeds=tuple((request.seed + index) % SEEDS for index in range(request.batch)),
        source=pictures.source(size, forget=request.strength == 1 and not model.takes_mask and not sees_canvas),
        references=pictures.references(size if sees_canvas else None),
    )


def _notices_of_cuts(model: LoadedModel, painting: Painting) -> list[str]:
    """Where the prompts were cut that are read, for the artist; nothing if they were not."""
    prompts = {"prompt": painting.prompt}
    if model.family.is_guided(painting.guidance):
        prompts["negative prompt"] = painting.negative_prompt
    cuts = {kind: model.family.left_out(words).split() for kind, words in prompts.items()}
    return [
        f"The {kind} is too long for {model.description.name}: it was cut before “{' '.join(rest[:8])[:80]} …”."
        for kind, rest in cuts.items()
        if rest
    ]
