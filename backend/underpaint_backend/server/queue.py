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
    """Gives jobs to a host, in the order in which they came, as many at once as it can run."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._filled = asyncio.Event()
        self._closed = False

    def submit(self, job: Job) -> bool:
        """Accept a job and tell its client how many go before it; false if no job is accepted any more."""
        if self._closed:
            return False
        position = len(self._waiting) + len(self._running)
        self._waiting.append(job)
        job.emit(Accepted(job.id, position))
        self._filled.set()
        return True

    def cancel(self, job: Job) -> None:
        """Stop a job: at once while it waits, through the host while it runs, and nothing if it has ended."""
        if job in self._waiting:
            self._waiting.remove(job)
            job.emit(Cancelled(job.id))
        elif job in self._running:
            self._host.cancel(job.id)

    async def work(self) -> None:
        """Run jobs until this task is cancelled."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._host.capacity):
                workers.create_task(self._work())

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            job = self._waiting.pop(0)
            self._running.append(job)
            try:
                await self._run(job)
            finally:
                self._running.remove(job)

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
        """End every job with a sentence that says why; none is accepted afterwards."""
        self._closed = True
        for job in [*self._running, *self._waiting]:
            if not job.state.ended:
                job.emit(Failed(job.id, describe("shutting_down")))
        self._waiting.clear()
