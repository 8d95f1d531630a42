"""What the main thread and the network thread tell each other, beside the protocol's own messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple, Union

from ._vendor.underpaint_protocol.errors import ErrorInfo
from ._vendor.underpaint_protocol.fields import Record
from ._vendor.underpaint_protocol.messages import Request
from .certificates import Certificate
from .pixels import Buffer, KritaPixels


@dataclass(frozen=True)
class Place:
    """Where a picture belongs: its corner at (`x`, `y`) of the canvas of a document of `width` x `height` px.

    `document` is its file name; empty if it was never saved.
    """

    x: int = 0
    y: int = 0
    width: int = 0
    height: int = 0
    document: str = ""


@dataclass(frozen=True)
class Job:
    """What the daemon shall paint. `pixels` and `mask` are of the size of the request, as Krita keeps them.

    `pixels` is blue, green, red, alpha; both are None for a picture from nothing, and for a job of an earlier Krita.
    """

    id: str
    request: Request
    pixels: Optional[Buffer] = None
    mask: Optional[Buffer] = None
    place: Place = Place()


@dataclass(frozen=True)
class Frame:
    """A preview, ready for the layer, as large as the request."""

    job: str
    step: int
    pixels: KritaPixels


@dataclass(frozen=True)
class Finished:
    """A finished picture, ready for the layer, as large as the request."""

    job: str
    index: int
    seed: int
    pixels: KritaPixels


@dataclass(frozen=True)
class Remembered:
    """These jobs of an earlier Krita have no place for their pictures yet. What becomes of them comes after."""

    jobs: Tuple[Job, ...]


@dataclass(frozen=True)
class Kept:
    """The picture of this job is in the file `path`."""

    job: str
    path: str


@dataclass(frozen=True)
class NotKept:
    """The picture of this job could not be written into a file."""

    job: str
    problem: str


@dataclass(frozen=True)
class Reconnecting:
    """There is no connection, because of `error`; it is tried again in `seconds`. Jobs are not over."""

    error: ErrorInfo
    seconds: float


@dataclass(frozen=True)
class Disconnected:
    """There is no connection, and it is not tried again. What runs at the server goes on there.

    `certificate` is what the server showed, if nobody this machine knows vouches for it.
    """

    error: ErrorInfo
    certificate: Optional[Certificate] = None


Event = Union[Record, Finished, Remembered, Kept, NotKept, Reconnecting, Disconnected]
