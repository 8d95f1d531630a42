"""What the server asks of a worker, read by a thread of its own so that it is heard while a job runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event
from typing import BinaryIO

from underpaint_protocol.errors import describe
from underpaint_protocol.exceptions import InvalidField, ProtocolError
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Cancel, Failed, Submit, Tile

from .interface import Memory, MemoryQuery, read_message
from .outbox import Outbox

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job that came in, with the tiles that came before it, by name. `cancelled` is set when it is to stop."""

    submit: Submit
    tiles: dict[bytes, bytes]
    cancelled: Event = field(default_factory=Event)


class Inbox:
    """Takes messages from `stream`: jobs wait to be taken in order; everything else acts at once."""

    def __init__(self, stream: BinaryIO, outbox: Outbox) -> None:
        self.memory: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """Free and total memory in bytes; to be set when the device is open."""
        self._stream = stream
        self._outbox = outbox
        self._tiles: dict[bytes, bytes] = {}
        self._waiting: SimpleQueue[Job] = SimpleQueue()
        self._jobs: dict[str, Job] = {}

    def read(self) -> None:
        """Take messages until the stream ends, also in the middle of one."""
        while True:
            try:
                message = read_message(self._stream)
            except EOFError:
                return
            except ProtocolError as error:
                self._refuse(error)
                continue
            if message is None:
                return
            try:
                self._take(message)
            except ProtocolError as error:
                log.warning("a message was refused: %s", error)

    def next(self) -> Job:
        """Wait for the next job."""
        return self._waiting.get()

    def forget(self, job: Job) -> None:
        """The job has ended."""
        if self._jobs.get(job.submit.job) is job:  # and not a new one of the same name
            del self._jobs[job.submit.job]

    def _take(self, message: Record) -> None:
        if isinstance(message, Tile):
            self._tiles[message.name] = message.data  # raw, and checked by the server
        elif isinstance(message, Submit):
            self._submit(message)
        elif isinstance(message, Cancel):
            job = self._jobs.get(message.job)
            if job is not None:
                job.cancelled.set()
        elif isinstance(message, MemoryQuery):
            self._outbox.send(Memory(*self.memory()))
        else:
            log.warning("a worker has no answer to %s", type(message).__name__)

    def _submit(self, submit: Submit) -> None:
        job = Job(submit, self._tiles)
        self._tiles = {}
        self._jobs[submit.job] = job
        self._waiting.put(job)

    def _refuse(self, error: ProtocolError) -> None:
        log.warning("a message was refused: %s", error)
        if isinstance(error, InvalidField) and error.job is not None:
            self._outbox.send(Failed(error.job, describe(error.code, detail=error)))
