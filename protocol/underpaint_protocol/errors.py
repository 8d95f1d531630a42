"""Everything that can go wrong, in one table: a code, a sentence for the artist, a hint, and whether to try again.

Sentences and hints may have places in braces that `describe` fills. Both ends, the docs and the tests read this table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Dict, Optional, Union

from .exceptions import InvalidField
from .fields import Record, flag, text


@dataclass(frozen=True)
class ErrorInfo(Record):
    """One error as it travels."""

    code: str = text(64, pattern=r"[a-z_]+")
    message: str = text(2000)
    hint: str = text(2000)
    retryable: bool = flag()


@dataclass(frozen=True)
class Row:
    """One line of the table. `retryable`: the same request may succeed later, unchanged."""

    message: str
    hint: str
    retryable: bool = False


TABLE: Dict[str, Row] = {
    # What the connection can do wrong.
    "malformed_message": Row(
        "The plugin and the daemon did not understand each other: {detail}.",
        "Install the plugin and the daemon from the same release.",
    ),
    "unknown_message": Row(
        "The daemon does not know the request “{detail}”.",
        "Install the plugin and the daemon from the same release.",
    ),
    "invalid_field": Row("{detail}.", "Correct the value and try again."),
    "bad_tile": Row(
        "Part of the picture was damaged on its way: {detail}.",
        "Try again. If it happens often, the connection is unreliable.",
        retryable=True,
    ),
    "unknown_session": Row(
        "The daemon does not remember this conversation.",
        "Nothing needs to be done: what had not ended is sent again.",
        retryable=True,
    ),
    "resumed_elsewhere": Row(
        "Another program went on with this conversation.",
        "Close one of the two.",
    ),
    "out_of_order": Row(
        "The plugin and the daemon are out of step: {detail}.",
        "Reconnect and try again.",
        retryable=True,
    ),
    "unauthorized": Row(
        "The daemon did not accept the token.",
        "Copy the token again from the machine on which the daemon runs.",
    ),
    "too_many_attempts": Row(
        "Too many wrong tokens came from this address.",
        "Copy the token again from the machine on which the daemon runs, and try again in {detail} s.",
    ),
    "too_many_connections": Row(
        "This token has {detail} open connections already, and no more are allowed.",
        "Close Krita or another program that uses it, and try again.",
        retryable=True,
    ),
    "unknown_certificate": Row(
        "Nobody known to this machine vouches for the certificate of {detail}. Nothing was sent there.",
        "Compare its fingerprint with the one that the daemon logs when it starts; trust it only if they are the same.",
    ),
    "certificate_changed": Row(
        "The certificate of {detail} is not the one that was trusted: somebody may be in between. Nothing was sent.",
        "Ask whoever runs the server. If it got a new certificate, forget the old one where its address is entered.",
    ),
    "forbidden_origin": Row("Web pages may not use this daemon.", "Connect from Krita or from the command line."),
    "forbidden_host": Row(
        "The daemon does not answer under this name.",
        "Whoever looks after the daemon has to start it with --allow-host and the name in the address. On its own "
        "machine, 127.0.0.1 does without.",
    ),
    "wrong_version": Row(
        "The plugin and the daemon speak different versions of their language.",
        "Install the plugin and the daemon from the same release.",
    ),
    "unreachable": Row(
        "Underpaint's daemon is not running at {detail}.",
        "Start it, or correct the address.",
        retryable=True,
    ),
    "disconnected": Row(
        "The connection to the daemon was lost.",
        "Nothing in your painting was changed. Press Generate again once the daemon is back.",
        retryable=True,
    ),
    # What a job can ask wrongly.
    "unknown_model": Row(
        "There is no model called “{detail}” here.",
        "Choose one of the models in the list; “underpaint models” shows them, too.",
    ),
    "unsupported_task": Row("The model “{model}” cannot do that: {detail}.", "Choose another model."),
    "unknown_scheduler": Row("There is no scheduler called “{detail}”.", "Choose one of: {known}."),
    "wrong_hybrid": Row(
        "The schedulers “{scheduler}” cannot be used in turn: {detail}.",
        "Write names with their steps, as in {example}, from what this model has: {known}.",
    ),
    "model_absent": Row(
        "The model “{model}” is not on the daemon's machine yet: {detail}.",
        "Fetch it in the list of models, or with “underpaint models pull {model}”.",
    ),
    "model_unfit": Row(
        "The model “{model}” cannot be used on this machine: {detail}.",
        "Choose another model, or a smaller variant of this one; files that are damaged have to be fetched again.",
    ),
    "may_not_fetch": Row(
        "This token may not fetch models.",
        "Ask whoever looks after the daemon to run “underpaint models pull {model}” there.",
    ),
    "too_many_references": Row(
        "The model “{model}” takes {detail}.",
        "Take some of the reference pictures away.",
    ),
    "unknown_lora": Row(
        "There is no LoRA called “{detail}” here.",
        "Put its file into a folder that “underpaint models add-folder” was told of.",
    ),
    "broken_lora": Row(
        "The LoRA “{lora}” cannot be used: {detail}.",
        "Choose another LoRA. Those for Stable Diffusion 1.5, SDXL, FLUX.1 and FLUX.2 can be used.",
    ),
    "wrong_lora": Row(
        "The LoRA “{lora}” was made for {detail}, not for {model}.",
        "Choose a model of its family, or another LoRA.",
    ),
    "wrong_size": Row(
        "Pictures of this size cannot be painted: {detail}.",
        "Choose an area of another size.",
    ),
    "wrong_mask_size": Row(
        "The selection mask does not fit the picture: {detail}.",
        "Select again and try once more.",
    ),
    "missing_pixels": Row(
        "Part of the picture never arrived: {detail}.",
        "Try again.",
        retryable=True,
    ),
    "too_many_pixels": Row(
        "The area is too large: {detail}.",
        "Select a smaller area, or scale the picture down.",
    ),
    "too_much_work": Row(
        "This is more work than is allowed in a day: {detail}.",
        "Ask for fewer steps or fewer pictures at once, or select a smaller area.",
    ),
    "too_many_jobs": Row(
        "Too many pictures are waiting already ({detail}).",
        "Wait until one is finished, or cancel one.",
        retryable=True,
    ),
    "allowance_used": Row(
        "Today's allowance on this daemon is used up: {detail}.",
        "There is a new one at {when}. Until then a smaller picture or fewer steps may still fit.",
        retryable=True,
    ),
    "journal_full": Row(
        "The daemon has no room on its disk to remember another job.",
        "Wait until one is finished. Whoever looks after the daemon should make room on its disk.",
        retryable=True,
    ),
    "journal_unavailable": Row(
        "The daemon cannot write down its jobs: {detail}.",
        "Whoever looks after the daemon should look at its log and its disk. Nothing in your painting was changed.",
        retryable=True,
    ),
    "storage_full": Row(
        "The daemon has no room for more pictures.",
        "Wait until one is finished. Whoever looks after the daemon can give it more room with --keep-gib.",
        retryable=True,
    ),
    "daemon_disk_full": Row(
        "The disk of the daemon is full.",
        "Try again when there is room. Whoever looks after the daemon has to make some; what waits for you is kept.",
        retryable=True,
    ),
    "too_many_uploads": Row(
        "More pixels were sent than this token may send without a picture being begun.",
        "Try again in {detail} s. Whoever looks after the daemon can allow a guest more with --upload-mib.",
        retryable=True,
    ),
    "duplicate_job": Row(
        "A job with this name exists already.",
        "Give each job a name of its own.",
    ),
    "unknown_job": Row("There is no such job.", "It may have ended already."),
    "empty_selection": Row(
        "The selection lies outside the canvas.",
        "Select something inside the picture and try again.",
    ),
    "small_selection": Row(
        "The selection is too small to paint into: {detail}.",
        "Select a larger area and try again.",
    ),
    # What a painting program can find out by itself.
    "no_document": Row("There is no picture to paint into.", "Open a picture, or make a new one."),
    "wrong_colour_space": Row(
        "Underpaint needs a picture in RGB with 8 bits per channel; this one is {detail}. Nothing was changed.",
        "Convert it with Image > Convert Image Color Space, or copy the part into a new picture.",
    ),
    "wrong_colour_profile": Row(
        "Underpaint needs a picture in sRGB; this one has the colour profile “{detail}”. Nothing was changed.",
        "Convert it with Image > Convert Image Color Space, choosing an sRGB profile such as sRGB-elle-V2-srgbtrc.icc.",
    ),
    "no_model": Row("The daemon has no model.", "Install one with “underpaint models”."),
    "not_installed": Row(
        "Underpaint's daemon was not found on this machine.",
        "Install it and run “underpaint serve” once; after that it can be started from here.",
    ),
    "not_started": Row(
        "The daemon did not start: {detail}.",
        "Its log says why; “underpaint doctor” checks what it needs.",
    ),
    "not_saved": Row("The settings could not be saved: {detail}.", "They hold until Krita is closed."),
    # What can happen to a job.
    "worker_died": Row(
        "The painting process stopped unexpectedly ({detail}) and was started again.",
        "Try again. If it happens each time, choose a smaller area or model.",
        retryable=True,
    ),
    "worker_unavailable": Row(
        "The painting process does not start: {detail}.",
        "Run “underpaint doctor” on the machine on which the daemon runs, and look at its log.",
    ),
    "out_of_memory": Row(
        "There was not enough memory for this picture: {detail}.",
        "Choose a smaller area, fewer pictures at once, or a smaller model.",
    ),
    "precision_unavailable": Row(
        "Weights cannot be kept in {precision} here: {detail}.",
        "Install what is lacking, or start the daemon with another --precision.",
    ),
    "model_broken": Row(
        "The model “{model}” could not be loaded: {detail}.",
        "Its files may be damaged. Install it again.",
    ),
    "model_gated": Row(
        "The model “{model}” is given only to those who accepted its licence: {detail}.",
        "Open {url}, accept the licence there, make a token on the hub's settings page, and run "
        "“underpaint models pull {model} --hub-token TOKEN”, or set HF_TOKEN.",
    ),
    "download_failed": Row(
        "The model “{model}” could not be fetched: {detail}.",
        "What came so far is kept. Try again; it goes on from there.",
        retryable=True,
    ),
    "hub_unreachable": Row(
        "The model “{model}” could not be fetched: {detail}.",
        "Look whether that machine has a network. A mirror is named with HF_ENDPOINT, a proxy with HTTPS_PROXY, where "
        "the daemon starts; without any network, copy the model there as docs/models.md says. What came is kept.",
        retryable=True,
    ),
    "working_offline": Row(
        "The model “{model}” was not fetched, because working offline was asked for.",
        "Leave --offline away, and HF_HUB_OFFLINE where the daemon starts; or copy the model as docs/models.md says.",
    ),
    "download_wrong": Row(
        "What was fetched of “{model}” is not what it should be: {detail}. It was deleted.",
        "Try again. If it happens again, choose another mirror.",
        retryable=True,
    ),
    "disk_full": Row(
        "There is not enough room on the disk for “{model}”: {detail}.",
        "Make room, or choose another folder for models. What came so far is kept.",
        retryable=True,
    ),
    "not_finite": Row(
        "The model “{model}” made no picture: its numbers overflowed.",
        "Lower the guidance, or choose another scheduler or seed. If it always happens, fetch the model again.",
    ),
    "shutting_down": Row(
        "The daemon is being stopped.",
        "What it had accepted goes on when it is started again. Repeat what it had not.",
        retryable=True,
    ),
    "internal": Row(
        "Something went wrong inside the daemon.",
        "The daemon's log has the details. Please report it.",
    ),
}


def describe(code: str, **places: object) -> ErrorInfo:
    """The error `code` with its places filled.

    Raises `KeyError` if the code is not in the table or a place of its sentence is not given: both are faults of the
    caller, found by the tests.
    """
    row = TABLE[code]
    clipped = {name: str(value)[:500] for name, value in places.items()}
    message = row.message.format(**clipped)
    return ErrorInfo(code, message[:1].upper() + message[1:], row.hint.format(**clipped), row.retryable)


def refusal_in(body: Union[bytes, bytearray, None]) -> Optional[ErrorInfo]:
    """The error in the body of an HTTP answer that refuses a handshake; None if something else answered."""
    try:
        wire = json.loads(body or b"")
        return ErrorInfo.from_wire(wire) if isinstance(wire, dict) else None
    except (ValueError, InvalidField):
        return None
