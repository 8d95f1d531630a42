"""The messages of `underpaint.v1`. SPEC.md tells when each may be sent.

A new message is one dataclass here. Sizes are in pixels, fractions from 0 to 1, times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Optional, Tuple

from .encodings import ENCODINGS, XOR
from .errors import ErrorInfo
from .exceptions import InvalidField
from .fields import (
    IDENTIFIER,
    MODEL_ID,
    SESSION_ID,
    Record,
    binary,
    choice,
    digest,
    digests,
    flag,
    integer,
    optional,
    real,
    record,
    sequence,
    text,
)
from .tiles import MAX_TILE, cell_count, cells
from .vocabulary import Vocabulary

SUBPROTOCOL = "underpaint.v1"
MAX_FRAME = 2 << 20
MAX_PREVIEW = 256 << 10
MAX_SIDE = 16384
MAX_TILES = 4096
MAX_JOBS = 4096
MAX_SEQ = 2**63 - 1

TASKS = ("inpaint", "text_to_image", "image_to_image", "edit")
PHASES = ("loading", "preparing", "encoding", "denoising", "decoding", "compositing")
MODEL_STATES = ("ready", "absent", "unfit")
WORKER_STATES = ("starting", "ready", "restarting", "failed")

RESUMED_ELSEWHERE = 4001
"""Close code: another connection resumed this one's session."""
TOO_SLOW = 4002
"""Close code: the client did not read for longer than `limits.stall_seconds`."""
REVOKED = 4003
"""Close code: the token was taken back."""

vocabulary = Vocabulary(MAX_FRAME)
message = vocabulary.message


# Values inside messages


@dataclass(frozen=True)
class Image(Record):
    """Pixels in tiles: `tiles` are the names of the cells of the canvas grid under the picture, row by row.

    The picture's corner lies at (`x`, `y`) of the canvas. 1 channel: a mask, all bits set is fully selected. 3: red,
    green, blue. 4: with straight alpha. Colours are sRGB. `depth` is 8 or 16 bits a channel, 16 in little-endian.
    """

    width: int = integer(1, MAX_SIDE)
    height: int = integer(1, MAX_SIDE)
    channels: int = choice((1, 3, 4))
    tiles: Tuple[bytes, ...] = digests(MAX_TILES)
    x: int = integer(0, 1 << 30, default=0)
    y: int = integer(0, 1 << 30, default=0)
    depth: int = choice((8, 16), default=8)

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = cell_count(self.x, self.y, self.width, self.height)
        if len(self.tiles) != expected:
            raise InvalidField("tiles", f"must name {expected} tiles; they are {len(self.tiles)}")

    @property
    def pixel_size(self) -> int:
        """Bytes of one pixel."""
        return self.channels * self.depth // 8

    @property
    def size(self) -> int:
        """Bytes of all pixels."""
        return self.width * self.height * self.pixel_size

    @property
    def tile_sizes(self) -> Iterator[Tuple[bytes, int]]:
        """Each tile's name and how many bytes it must have."""
        places = cells(self.x, self.y, self.width, self.height)
        return ((name, cell.area * self.pixel_size) for name, cell in zip(self.tiles, places))


@dataclass(frozen=True)
class Adapter(Record):
    """A LoRA that changes the model for one job, as far as `weight` says; 0 is not at all."""

    name: str = text(200)
    weight: float = real(-4.0, 4.0, default=1.0)


@dataclass(frozen=True)
class Request(Record):
    """All that determines a picture. Two equal requests give equal pictures on one machine.

    `image` is the part of the canvas around the selection and `mask`, of the same size, the selection. Without an
    image, `width` and `height` are the size of the new picture. `None` for scheduler, guidance or steps takes the
    model's own default. A large area is painted at the model's own size and scaled up, or with `full_size` at up to 4
    megapixels, in windows where the model was trained for less. `references` are pictures of any size to take something
    from; `loras` change the model.
    """

    model: str = text(100, pattern=MODEL_ID)
    task: str = choice(TASKS)
    width: int = integer(1, MAX_SIDE)
    height: int = integer(1, MAX_SIDE)
    prompt: str = text(100_000, default="")
    negative_prompt: str = text(100_000, default="")
    strength: float = real(0.01, 1.0, default=1.0)
    steps: Optional[int] = optional(integer(1, 1000))
    guidance: Optional[float] = optional(real(0.0, 100.0))
    scheduler: Optional[str] = optional(text(64))
    seed: int = integer(0, 2**63 - 1, default=0)
    batch: int = integer(1, 16, default=1)
    image: Optional[Image] = optional(Image)
    mask: Optional[Image] = optional(Image)
    full_size: bool = flag(default=False)
    references: Tuple[Image, ...] = sequence(Image, 16, default=())
    loras: Tuple[Adapter, ...] = sequence(Adapter, 16, default=())

    @property
    def images(self) -> Tuple[Image, ...]:
        """The pictures that travel with the request."""
        return tuple(image for image in (self.image, self.mask, *self.references) if image is not None)


@dataclass(frozen=True)
class Model(Record):
    """A model that the daemon can run, or could, with the values that suit it.

    The model paints best at about `native_area` square pixels, with sides that are multiples of `size_multiple`. It
    takes up to `max_references` reference pictures, beside the canvas that it paints into. Only what is "ready" can be
    used at once; what is "absent" has to be fetched first, which are `download` bytes, and what is "unfit" cannot run
    here, of which `detail` says why. `gated` models want their licence accepted by whoever fetches them, and `detail`
    says where. `memory` is about how many bytes it takes.
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
    max_references: int = integer(0, 16, default=0)
    state: str = choice(MODEL_STATES, default="ready")
    download: int = integer(0, 1 << 50, default=0)
    gated: bool = flag(default=False)
    memory: int = integer(0, 1 << 50, default=0)
    detail: str = text(500, default="")


@dataclass(frozen=True)
class Limits(Record):
    """What the holder of one token may ask for.

    `max_pixels` is the area of a request times its batch; `max_jobs` may wait and run at once, with `max_tile_bytes`
    of pixels. Results are kept for `keep_seconds`. A client that does not read for `stall_seconds` is closed.
    `work_per_day` is in megapixel steps: area times pictures times steps, in millions; None is without bound.
    """

    max_pixels: int = integer(1, 1 << 30)
    max_jobs: int = integer(1, MAX_JOBS)
    max_batch: int = integer(1, 16)
    max_tile_bytes: int = integer(1, 1 << 40)
    keep_seconds: int = integer(0, 1 << 32)
    stall_seconds: int = integer(1, 3600)
    work_per_day: Optional[int] = optional(integer(0, 1 << 50))


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
    """Client: the first message. `client` names the program and its version, for the log.

    `encodings` are those in which it takes tiles, best first.
    """

    client: str = text(200)
    encodings: Tuple[str, ...] = sequence(text(16), 8, default=("raw",))


@message("welcome")
@dataclass(frozen=True)
class Welcome(Record):
    """Server: the answer to `hello`, with what it can do.

    `session` is a new one. `encodings` are those in which the server takes tiles.
    """

    server: str = text(200)
    session: str = text(32, pattern=SESSION_ID)
    worker: Worker = record(Worker)
    models: Tuple[Model, ...] = sequence(Model, 1000)
    limits: Limits = record(Limits)
    encodings: Tuple[str, ...] = sequence(text(16), 8, default=(*ENCODINGS, XOR))


@message("resume")
@dataclass(frozen=True)
class Resume(Record):
    """Client: go on with an earlier session, of which it has seen all up to the number `last_seq`."""

    session: str = text(32, pattern=SESSION_ID)
    last_seq: int = integer(0, MAX_SEQ)


@message("resumed")
@dataclass(frozen=True)
class Resumed(Record):
    """Server: the session goes on; what came after `last_seq` follows.

    `jobs` are all that the server knows of this session: those that have not ended and those that wait for
    `acknowledge`.
    """

    session: str = text(32, pattern=SESSION_ID)
    jobs: Tuple[str, ...] = sequence(text(64, pattern=IDENTIFIER), MAX_JOBS)


@message("status")
@dataclass(frozen=True)
class Status(Record):
    """Server: the worker's state changed. While `draining`, the daemon is about to stop and takes no new job."""

    worker: Worker = record(Worker)
    draining: bool = flag(default=False)


@message("models")
@dataclass(frozen=True)
class Models(Record):
    """Server: what can be run here changed; these are all."""

    models: Tuple[Model, ...] = sequence(Model, 1000)


@message("pull")
@dataclass(frozen=True)
class Pull(Record):
    """Client: fetch the files of a model that is absent; with `stop`, leave off. What came is kept."""

    model: str = text(100, pattern=MODEL_ID)
    stop: bool = flag(default=False)


@message("pulling")
@dataclass(frozen=True)
class Pulling(Record):
    """Server: how far a model is fetched, in bytes, to every connection of who may fetch models.

    It is over when `done` is `total`, with an `error`, or when it is `stopped`. `seconds_left` is nil while unknown.
    """

    model: str = text(100, pattern=MODEL_ID)
    done: int = integer(0, 1 << 50)
    total: int = integer(0, 1 << 50)
    seconds_left: Optional[float] = optional(real(0.0, 1e9))
    stopped: bool = flag(default=False)
    error: Optional[ErrorInfo] = optional(ErrorInfo)


# Pixels


@message("have")
@dataclass(frozen=True)
class Have(Record):
    """Client: which of these tiles does the server not have? Answered by `missing` with the same `query`."""

    query: int = integer(0, 2**63 - 1)
    tiles: Tuple[bytes, ...] = digests(MAX_TILES)


@message("missing")
@dataclass(frozen=True)
class Missing(Record):
    """Server: send these tiles. With `query` the answer to `have`; with `job` a `submit` has to be sent again after."""

    tiles: Tuple[bytes, ...] = digests(MAX_TILES)
    query: Optional[int] = optional(integer(0, 2**63 - 1))
    job: Optional[str] = optional(text(64, pattern=IDENTIFIER))


@message("tile")
@dataclass(frozen=True)
class Tile(Record):
    """Either side: one tile. `size` is the number of its raw bytes, of which `name` is the hash.

    With the encoding `xor`, which only a client may use, `base` names the tile to which this one is the difference.
    """

    name: bytes = digest()
    size: int = integer(1, MAX_TILE)
    data: bytes = binary(MAX_TILE)
    encoding: str = choice((*ENCODINGS, XOR), default="raw")
    base: Optional[bytes] = optional(digest())

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.base is None) == (self.encoding == XOR):
            raise InvalidField("base", f"belongs to the encoding {XOR} and to no other")


@message("fetch")
@dataclass(frozen=True)
class Fetch(Record):
    """Client: send these tiles of the job's results."""

    job: str = text(64, pattern=IDENTIFIER)
    tiles: Tuple[bytes, ...] = digests(MAX_TILES)


# Jobs


@message("submit")
@dataclass(frozen=True)
class Submit(Record):
    """Client: do this, under an id that the client chose; the same id again is the same job.

    `supersedes` is an older job of the same session that is cancelled once this one is accepted.
    """

    job: str = text(64, pattern=IDENTIFIER)
    request: Request = record(Request)
    previews: bool = flag(default=True)
    supersedes: Optional[str] = optional(text(64, pattern=IDENTIFIER))


@message("cancel")
@dataclass(frozen=True)
class Cancel(Record):
    """Client: stop this job."""

    job: str = text(64, pattern=IDENTIFIER)


@message("acknowledge")
@dataclass(frozen=True)
class Acknowledge(Record):
    """Client: this job has ended and its results are safe here; the server forgets it. There is no answer."""

    job: str = text(64, pattern=IDENTIFIER)


@message("accepted")
@dataclass(frozen=True)
class Accepted(Record):
    """Server, state: the job is written down and will run; `position` jobs go before it."""

    job: str = text(64, pattern=IDENTIFIER)
    position: int = integer(0, 1_000_000)
    seq: int = integer(0, MAX_SEQ, default=0)


@message("position")
@dataclass(frozen=True)
class Position(Record):
    """Server: now `position` jobs go before this one. A newer one replaces an older one."""

    job: str = text(64, pattern=IDENTIFIER)
    position: int = integer(0, 1_000_000)


@message("started")
@dataclass(frozen=True)
class Started(Record):
    """Server, state: the job is given to a worker, for the `attempt`-th time. Its progress begins anew."""

    job: str = text(64, pattern=IDENTIFIER)
    attempt: int = integer(1, 1_000_000)
    seq: int = integer(0, MAX_SEQ, default=0)


@message("progress")
@dataclass(frozen=True)
class Progress(Record):
    """Server, state: how far the job is. `fraction` never falls within an attempt. Steps count model evaluations."""

    job: str = text(64, pattern=IDENTIFIER)
    phase: str = choice(PHASES)
    fraction: float = real(0.0, 1.0)
    step: int = integer(0, 100_000, default=0)
    steps: int = integer(0, 100_000, default=0)
    seq: int = integer(0, MAX_SEQ, default=0)


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
    data: bytes = binary(MAX_PREVIEW)
    predicted_at: float = real(0.0, 1e12)


@message("result")
@dataclass(frozen=True)
class Result(Record):
    """Server, state: a finished picture, as large as the request's area; its tiles wait to be fetched.

    It has 4 channels and the depth of the request's image. Alpha is the selection, so that laid over the canvas it
    changes nothing outside.
    """

    job: str = text(64, pattern=IDENTIFIER)
    index: int = integer(0, 15)
    seed: int = integer(0, 2**63 - 1)
    image: Image = record(Image)
    seq: int = integer(0, MAX_SEQ, default=0)


@message("done")
@dataclass(frozen=True)
class Done(Record):
    """Server, state, terminal: all pictures of the job are there. `seconds` is the time since it was started.

    `notices` are sentences for the artist about what was done otherwise than asked, as a prompt that was cut.
    """

    job: str = text(64, pattern=IDENTIFIER)
    seconds: float = real(0.0, 1e9)
    seq: int = integer(0, MAX_SEQ, default=0)
    notices: Tuple[str, ...] = sequence(text(500), 8, default=())


@message("failed")
@dataclass(frozen=True)
class Failed(Record):
    """Server, state, terminal: the job ended without its pictures."""

    job: str = text(64, pattern=IDENTIFIER)
    error: ErrorInfo = record(ErrorInfo)
    seq: int = integer(0, MAX_SEQ, default=0)


@message("cancelled")
@dataclass(frozen=True)
class Cancelled(Record):
    """Server, state, terminal: the job was stopped as the client asked."""

    job: str = text(64, pattern=IDENTIFIER)
    seq: int = integer(0, MAX_SEQ, default=0)


@message("error")
@dataclass(frozen=True)
class Error(Record):
    """Server: a message of the client was refused; with `job`, that message spoke of this job.

    The connection stays usable. A refused `submit` never becomes a job.
    """

    error: ErrorInfo = record(ErrorInfo)
    job: Optional[str] = optional(text(64, pattern=IDENTIFIER))


TERMINAL = (Done, Failed, Cancelled)
STATE = (Accepted, Started, Progress, Result, *TERMINAL)
"""What is numbered and never lost."""
