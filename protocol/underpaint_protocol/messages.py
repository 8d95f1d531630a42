"""The messages of `underpaint.v1`. SPEC.md tells when each may be sent.

A new message is one dataclass here. What they carry is in `values.py`, and can be had from here, too.
Sizes are in pixels, fractions from 0 to 1, times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Tuple

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
from .tiles import MAX_TILE
from .values import MAX_JOBS as MAX_JOBS
from .values import MAX_NAMES as MAX_NAMES
from .values import MAX_SIDE as MAX_SIDE
from .values import MAX_TILES as MAX_TILES
from .values import WORKER_STATES as WORKER_STATES
from .values import Adapter as Adapter
from .values import Image as Image
from .values import Limits as Limits
from .values import Model as Model
from .values import Request as Request
from .values import Worker as Worker
from .vocabulary import Vocabulary

SUBPROTOCOL = "underpaint.v1"
MAX_FRAME = 2 << 20
MAX_PREVIEW = 256 << 10
MAX_SEQ = 2**63 - 1

PHASES = ("loading", "preparing", "encoding", "denoising", "decoding", "compositing")

RESUMED_ELSEWHERE = 4001
"""Close code: another connection resumed this one's session."""
TOO_SLOW = 4002
"""Close code: the client did not read for longer than `limits.stall_seconds`."""
REVOKED = 4003
"""Close code: the token was taken back."""

vocabulary = Vocabulary(MAX_FRAME)
message = vocabulary.message


def job_id() -> Any:
    """A field that names a job, as its client chose."""
    return text(64, pattern=IDENTIFIER)


def state_number() -> Any:
    """A field with the number of a state message in its session, from 1 on; 0 for what was not numbered yet."""
    return integer(0, MAX_SEQ, default=0)


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
    jobs: Tuple[str, ...] = sequence(job_id(), MAX_JOBS)


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
    job: Optional[str] = optional(job_id())


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

    job: str = job_id()
    tiles: Tuple[bytes, ...] = digests(MAX_TILES)


# Jobs


@message("submit")
@dataclass(frozen=True)
class Submit(Record):
    """Client: do this, under an id that the client chose; the same id again is the same job.

    `supersedes` is an older job of the same session that is cancelled once this one is accepted.
    """

    job: str = job_id()
    request: Request = record(Request)
    previews: bool = flag(default=True)
    supersedes: Optional[str] = optional(job_id())


@message("cancel")
@dataclass(frozen=True)
class Cancel(Record):
    """Client: stop this job."""

    job: str = job_id()


@message("acknowledge")
@dataclass(frozen=True)
class Acknowledge(Record):
    """Client: this job has ended and its results are safe here; the server forgets it. There is no answer."""

    job: str = job_id()


@message("accepted")
@dataclass(frozen=True)
class Accepted(Record):
    """Server, state: the job is written down and will run; `position` jobs go before it."""

    job: str = job_id()
    position: int = integer(0, 1_000_000)
    seq: int = state_number()


@message("position")
@dataclass(frozen=True)
class Position(Record):
    """Server: now `position` jobs go before this one. A newer one replaces an older one."""

    job: str = job_id()
    position: int = integer(0, 1_000_000)


@message("started")
@dataclass(frozen=True)
class Started(Record):
    """Server, state: the job is given to a worker, for the `attempt`-th time. Its progress begins anew."""

    job: str = job_id()
    attempt: int = integer(1, 1_000_000)
    seq: int = state_number()


@message("progress")
@dataclass(frozen=True)
class Progress(Record):
    """Server, state: how far the job is. `fraction` never falls within an attempt. Steps count model evaluations."""

    job: str = job_id()
    phase: str = choice(PHASES)
    fraction: float = real(0.0, 1.0)
    step: int = integer(0, 100_000, default=0)
    steps: int = integer(0, 100_000, default=0)
    seq: int = state_number()


@message("preview")
@dataclass(frozen=True)
class Preview(Record):
    """Server: what picture `index` of the job will look like, as the model sees it at this step.

    `data` is a JPEG at latent size that covers the request's whole area. A newer preview replaces an older one.
    `predicted_at` is the worker's clock (Unix time) when the prediction existed.
    """

    job: str = job_id()
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

    job: str = job_id()
    index: int = integer(0, 15)
    seed: int = integer(0, 2**63 - 1)
    image: Image = record(Image)
    seq: int = state_number()


@message("done")
@dataclass(frozen=True)
class Done(Record):
    """Server, state, terminal: all pictures of the job are there. `seconds` is the time since it was started.

    `notices` are sentences for the artist about what was done otherwise than asked, as a prompt that was cut.
    """

    job: str = job_id()
    seconds: float = real(0.0, 1e9)
    seq: int = state_number()
    notices: Tuple[str, ...] = sequence(text(500), 8, default=())


@message("failed")
@dataclass(frozen=True)
class Failed(Record):
    """Server, state, terminal: the job ended without its pictures."""

    job: str = job_id()
    error: ErrorInfo = record(ErrorInfo)
    seq: int = state_number()


@message("cancelled")
@dataclass(frozen=True)
class Cancelled(Record):
    """Server, state, terminal: the job was stopped as the client asked."""

    job: str = job_id()
    seq: int = state_number()


@message("error")
@dataclass(frozen=True)
class Error(Record):
    """Server: a message of the client was refused; with `job`, that message spoke of this job.

    The connection stays usable. A refused `submit` never becomes a job.
    """

    error: ErrorInfo = record(ErrorInfo)
    job: Optional[str] = optional(job_id())


TERMINAL = (Done, Failed, Cancelled)
STATE = (Accepted, Started, Progress, Result, *TERMINAL)
"""What is numbered and never lost."""
