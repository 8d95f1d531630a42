"""The client's side of a connection, without a socket: bytes in, events out.

A shell (a thread in the plugin, asyncio in the daemon's own tools) moves the bytes:

    session = ClientSession("my program 1.0")
    send(session.hello())
    for frame in session.submit(job, request, [pixels, mask]):
        send(frame)
    for event in session.receive(frame_from_server):
        ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterator, Optional, Sequence, Union

from .blobs import BlobStore, chunks, digest_of
from .exceptions import BlobError, OutOfOrder, UnknownMessage
from .fields import Record
from .jobs import JobState
from .messages import (
    TERMINAL,
    BlobChunk,
    Cancel,
    Error,
    Hello,
    Request,
    Result,
    Submit,
    Welcome,
    vocabulary,
)

MAX_RESULT_BYTES = 1 << 29


@dataclass(frozen=True)
class Picture:
    """A finished picture with its pixels: red, green, blue and straight alpha, 8 bits each, sRGB."""

    job: str
    index: int
    seed: int
    width: int
    height: int
    pixels: bytes


Event = Union[Record, Picture]


class ClientSession:
    """What a client knows of its connection: the server's welcome and the jobs that have not ended."""

    def __init__(self, client: str) -> None:
        """`client` names the program and its version."""
        self.client = client
        self.welcome: Optional[Welcome] = None
        self._jobs: Dict[str, JobState] = {}
        self._blobs = BlobStore(MAX_RESULT_BYTES)

    @property
    def running(self) -> Sequence[str]:
        """Ids of the jobs that were submitted and have not ended."""
        return tuple(self._jobs)

    def hello(self) -> bytes:
        """The first frame to send."""
        return vocabulary.encode(Hello(self.client))

    def submit(self, job: str, request: Request, blobs: Sequence[bytes] = (), previews: bool = True) -> Iterator[bytes]:
        """The frames that submit a job: the pixels that `request` names, then the request itself.

        Raises `OutOfOrder` if a job of this id is running, and `BlobError` if `request` names a blob that is not
        among `blobs`.
        """
        if job in self._jobs:
            raise OutOfOrder(f"the job {job} was submitted already")
        by_name = {digest_of(blob): blob for blob in blobs}
        for image in request.images:
            if image.blob not in by_name:
                raise BlobError("the request names a picture that is not given")
        submit = vocabulary.encode(Submit(job, request, previews))
        self._jobs[job] = JobState()
        return self._frames(by_name, submit)

    @staticmethod
    def _frames(blobs: Dict[str, bytes], submit: bytes) -> Iterator[bytes]:
        for name, blob in blobs.items():
            for chunk in chunks(name, blob):
                yield vocabulary.encode(chunk)
        yield submit

    def cancel(self, job: str) -> bytes:
        """The frame that asks to stop a job."""
        return vocabulary.encode(Cancel(job))

    def receive(self, frame: bytes) -> Iterator[Event]:
        """The events in one frame of the server; none for a piece of a picture or a message of a later version.

        Raises `ProtocolError` if the server breaks the language.
        """
        try:
            message = vocabulary.decode(frame)
        except UnknownMessage:
            return
        if isinstance(message, BlobChunk):
            self._blobs.add(message)
            return
        if isinstance(message, Welcome):
            self.welcome = message
        self._follow(message)
        yield self._picture(message) if isinstance(message, Result) else message

    def _follow(self, message: Record) -> None:
        job = getattr(message, "job", None)
        if isinstance(message, Error):
            state = self._jobs.get(job) if job else None
            if state is not None and not state.accepted:
                del self._jobs[str(job)]
        elif job is not None:
            if job not in self._jobs:
                raise OutOfOrder("the server speaks of a job that is not running")
            self._jobs[job].apply(message)
            if isinstance(message, TERMINAL):
                del self._jobs[job]

    def _picture(self, result: Result) -> Picture:
        image = result.image
        pixels = self._blobs.take(image.blob)
        if pixels is None or len(pixels) != image.size or image.channels != 4:
            raise BlobError("the pixels of a result are missing")
        return Picture(result.job, result.index, result.seed, image.width, image.height, pixels)
