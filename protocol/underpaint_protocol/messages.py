"""The messages of `underpaint.v1`. SPEC.md tells when each may be sent.

A new message is one dataclass here. Sizes are in pixels, fractions from 0 to 1, times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from .errors import ErrorInfo
from .exceptions import InvalidField
from .fields import (
    DIGEST,
    IDENTIFIER,
    MODEL_ID,
    Record,
    binary,
    choice,
    flag,
    integer,
    optional,
    real,
    record,
    sequence,
    text,
)
from .vocabulary import Vocabulary

SUBPROTOCOL = "underpaint.v1"
MAX_FRAME = 2 << 20
CHUNK = 256 << 10
MAX_SIDE = 16384
MAX_BLOB = 1 << 28

TASKS = ("inpaint", "text_to_image")
PHASES = ("loading", "preparing", "encoding", "denoising", "decoding", "compositing")
WORKER_STATES = ("starting", "ready", "restarting", "failed")

vocabulary = Vocabulary(MAX_FRAME)
message = vocabulary.message


# Values inside messages


@dataclass(frozen=True)
class Image(Record):
    """Raw 8-bit pixels, row by row without padding, in the blob `blob`.

    1 channel: a mask, 255 is fully selected. 3: red, green, blue. 4: with straight alpha. Colours are sRGB.
    """

    width: int = integer(1, MAX_SIDE)
    height: int = integer(1, MAX_SIDE)
    channels: int = choice((1, 3, 4))
    blob: str = text(32, pattern=DIGEST)

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return self.width * self.height * self.channels


@dataclass(frozen=True)
class Request(Record):
    """All that determines a picture. Two equal requests give equal pictures on one machine.

    `image` is the part of the canvas around the selection and `mask`, of the same size, the selection. Without an
    image, `width` and `height` are the size of the new picture. `None` for scheduler, guidance or steps takes the
    model's own default.
    """

    model: str = text(100, pattern=MODEL_ID)
    task: str = choice(TASKS)
    width: int = integer(1, MAX_SIDE)
    height: int = integer(1, MAX_SIDE)
    prompt: str = text(10_000, default="")
    negative_prompt: str = text(10_000, default="")
    strength: float = real(0.01, 1.0, default=1.0)
    steps: Optional[int] = optional(integer(1, 1000))
    guidance: Optional[float] = optional(real(0.0, 100.0))
    scheduler: Optional[str] = optional(text(64))
    seed: int = integer(0, 2**63 - 1, default=0)
    batch: int = integer(1, 16, default=1)
    image: Optional[Image] = optional(Image)
    mask: Optional[Image] = optional(Image)

    @property
    def images(self) -> Tuple[Image, ...]:
        """The pictures that travel with the request."""
        return tuple(image for image in (self.image, self.mask) if image is not None)


@dataclass(frozen=True)
class Model(Record):
    """A model that the daemon can run, with the values that suit it.

    The model paints best at about `native_area` square pixels, with sides that are multiples of `size_multiple`.
    """

    id: str = text(100, pattern=MODEL_ID)
    name: str = text(200)
    family: str = text(64, pattern=r"[a-z0-9_]+")
    tasks: Tuple[str, ...] = sequence(choice(TASKS), 16)
    schedulers: Tuple[str, ...] = sequence(text(64), 64)
    native_area: int = integer(1, 1 << 28)
    size_multiple: int = integer(1, 1024)
    default_steps: int = integer(1, 1000)
    default_guidance: float = real(0.0, 100.0)
    default_scheduler: str = text(64)
    licence: str = text(200, default="")


@dataclass(frozen=True)
class Limits(Record):
    """What one client may ask for.

    `max_pixels` is the area of a request times its batch; `max_blob_bytes` bounds the pixels that wait with its jobs.
    """

    max_pixels: int = integer(1, 1 << 30)
    max_jobs: int = integer(1, 10_000)
    max_batch: int = integer(1, 16)
    max_blob_bytes: int = integer(1, 1 << 40)


@dataclass(frozen=True)
class Worker(Record):
    """How the process that owns the device is. `device` is what it runs on, such as "cpu" or "cuda:0 NVIDIA L4"."""

    state: str = choice(WORKER_STATES)
    device: str = text(200, default="")
    detail: str = text(500, default="")


# Opening


@message("hello")
@dataclass(frozen=True)
class Hello(Record):
    """Client: the first message. `client` names the program and its version, for the log."""

    client: str = text(200)


@message("welcome")
@dataclass(frozen=True)
class Welcome(Record):
    """Server: the answer to `hello`, with what it can do."""

    server: str = text(200)
    worker: Worker = record(Worker)
    models: Tuple[Model, ...] = sequence(Model, 1000)
    limits: Limits = record(Limits)


@message("status")
@dataclass(frozen=True)
class Status(Record):
    """Server: the worker's state changed."""

    worker: Worker = record(Worker)


# Pixels


@message("blob")
@dataclass(frozen=True)
class BlobChunk(Record):
    """Either side: a piece of a blob, which is named by the BLAKE2b-128 of its bytes. Pieces come in order."""

    blob: str = text(32, pattern=DIGEST)
    size: int = integer(1, MAX_BLOB)
    offset: int = integer(0, MAX_BLOB)
    data: bytes = binary(CHUNK)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data or self.offset + len(self.data) > self.size:
            raise InvalidField("data", "does not lie inside the blob")


# Jobs


@message("submit")
@dataclass(frozen=True)
class Submit(Record):
    """Client: do this, under an id that the client chose. Its blobs were sent before."""

    job: str = text(64, pattern=IDENTIFIER)
    request: Request = record(Request)
    previews: bool = flag(default=True)


@message("cancel")
@dataclass(frozen=True)
class Cancel(Record):
    """Client: stop this job."""

    job: str = text(64, pattern=IDENTIFIER)


@message("accepted")
@dataclass(frozen=True)
class Accepted(Record):
    """Server: the job will run; `position` jobs go before it."""

    job: str = text(64, pattern=IDENTIFIER)
    position: int = integer(0, 1_000_000)


@message("progress")
@dataclass(frozen=True)
class Progress(Record):
    """Server: how far the job is. `fraction` never falls. Steps count evaluations of the model."""

    job: str = text(64, pattern=IDENTIFIER)
    phase: str = choice(PHASES)
    fraction: float = real(0.0, 1.0)
    step: int = integer(0, 100_000, default=0)
    steps: int = integer(0, 100_000, default=0)


@message("preview")
@dataclass(frozen=True)
class Preview(Record):
    """Server: what picture `index` of the job will look like, as the model sees it at this step.

    `data` is a JPEG at latent size that covers the request's whole area. A newer preview replaces an older one.
    `predicted_at` is the worker's clock (Unix time) when the prediction existed.
    """

    job: str = text(64, pattern=IDENTIFIER)
    index: int = integer(0, 15)
    step: int = integer(0, 100_000)
    width: int = integer(1, MAX_SIDE)
    height: int = integer(1, MAX_SIDE)
    data: bytes = binary(CHUNK)
    predicted_at: float = real(0.0, 1e12)


@message("result")
@dataclass(frozen=True)
class Result(Record):
    """Server: a finished picture, as large as the request's area; its blob was sent before.

    It has 4 channels. Alpha is the selection, so that laid over the canvas it changes nothing outside.
    """

    job: str = text(64, pattern=IDENTIFIER)
    index: int = integer(0, 15)
    seed: int = integer(0, 2**63 - 1)
    image: Image = record(Image)


@message("done")
@dataclass(frozen=True)
class Done(Record):
    """Server, terminal: all pictures of the job were sent. `seconds` is the time since it was started."""

    job: str = text(64, pattern=IDENTIFIER)
    seconds: float = real(0.0, 1e9)


@message("failed")
@dataclass(frozen=True)
class Failed(Record):
    """Server, terminal: the job ended without its pictures."""

    job: str = text(64, pattern=IDENTIFIER)
    error: ErrorInfo = record(ErrorInfo)


@message("cancelled")
@dataclass(frozen=True)
class Cancelled(Record):
    """Server, terminal: the job was stopped as the client asked."""

    job: str = text(64, pattern=IDENTIFIER)


@message("error")
@dataclass(frozen=True)
class Error(Record):
    """Server: a message of the client was refused; with `job`, that message spoke of this job.

    The connection stays usable. A refused `submit` never becomes a job.
    """

    error: ErrorInfo = record(ErrorInfo)
    job: Optional[str] = optional(text(64, pattern=IDENTIFIER))


TERMINAL = (Done, Failed, Cancelled)
