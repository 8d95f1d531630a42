"""Jobs that wait for the worker, and the one that runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from underpaint_protocol.errors import describe
from underpaint_protocol.fields import Record
from underpaint_protocol.jobs import JobState
from underpaint_protocol.messages import Accepted, BlobChunk, Cancelled, Failed, Submit

from .hosts import Host

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """One accepted job. `deliver` takes its messages to the client that submitted it."""

    submit: Submit
    blobs: Sequence[BlobChunk]
    deliver: Callable[[Record], None]
    state: JobState = field(default_factory=JobState)
    started: bool = False

    @property
    def id(self) -> str:
        return self.submit.job

    def emit(self, message: Record) -> None:
        """Deliver a message if the life of the job allows it.

        Raises `OutOfOrder` if not.
        """
        self.state.apply(message)
        self.deliver(message)


class JobQueue:
    """Gives jobs to a host, one after another, in the order in which they came."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: list[Job] = []
        self._running: Job | None = None
        self._wake = asyncio.Event()

    def submit(self, job: Job) -> None:
        """Accept a job and tell its client how many go before it."""
        position = len(self._waiting) + (self._running is not None)
        self._waiting.append(job)
        job.emit(Accepted(job.id, position))
        self._wake.set()

    def cancel(self, job: Job) -> None:
        """Stop a job: at once while it waits, through the host while it runs, and nothing if it has ended."""
        if job in self._waiting:
            self._waiting.remove(job)
            job.emit(Cancelled(job.id))
        elif job is self._running:
            self._host.cancel(job.id)

    async def work(self) -> None:
        """Run jobs until this task is cancelled."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            self._running = self._waiting.pop(0)
            try:
                await self._run(self._running)
            finally:
                self._running = None

    async def _run(self, job: Job) -> None:
        began = time.monotonic()
        try:
            async with aclosing(self._host.run(job.submit, job.blobs)) as messages:
                async for message in messages:
                    job.emit(message)
        except Exception:
            log.exception("the job %s broke", job.id)
        if not job.state.ended:
            job.emit(Failed(job.id, describe("internal")))
        log.info("the job %s ended after %.2f s", job.id, time.monotonic() - began)

    def shut_down(self) -> None:
        """End every job with a sentence that says why; nothing runs afterwards."""
        running = [self._running] if self._running and not self._running.state.ended else []
        for job in [*running, *self._waiting]:
            job.emit(Failed(job.id, describe("shutting_down")))
        self._waiting.clear()
