"""Jobs that wait for a worker, and those that run: whose turn it is, and what happens when a worker dies."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import replace

from underpaint_protocol.errors import describe
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import TERMINAL, Cancelled, Done, Failed, Position, Preview, Result, Tile

from .book import Book
from .hosts import Host
from .pixels import MissingTile
from .sessions import Job
from .tiles import DiskFull, StoreFull
from .turns import Turns

log = logging.getLogger(__name__)

MAX_DEATHS = 2
"""Workers that may die over one job in one life of the daemon: it is tried again once."""
MAX_ATTEMPTS = 5
"""Starts of one job in all lives of the daemon, in case it is the job that ends them."""
TELL_INTERVAL = 0.2
"""Seconds between two rounds of telling clients their place in the queue."""

End = Done | Failed | Cancelled


class JobQueue:
    """Gives jobs to a host, fairly between clients, as many at once as it can run."""

    def __init__(self, host: Host, book: Book) -> None:
        self._host = host
        self._book = book
        self._turns: Turns[Job] = Turns(_owner, _session, _model)
        self._running: list[Job] = []
        self._warm: list[str] = []
        self._filled = asyncio.Event()
        self._moved = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._deaths: dict[Job, int] = {}
        self._names: dict[Job, str] = {}
        """What the host calls the jobs that run. Clients choose their ids, and two may choose the same."""
        self._begun = 0
        self.draining = False

    def place_of(self, job: Job) -> int:
        """How many jobs would go before `job` if it were added now."""
        self._turns.add(job)
        place = self._turns.order().index(job)
        self._turns.remove(job)
        return place + len(self._running)

    async def add(self, job: Job) -> None:
        """Queue an accepted job."""
        if job.cancelled:
            await self._book.end(job, Cancelled(job.id))
            return
        self._turns.add(job)
        self._changed()

    async def cancel(self, job: Job) -> None:
        """Stop a job: at once while it waits, through the host while it runs, and nothing if it has ended."""
        job.cancelled = True
        if self._turns.remove(job):
            self._changed()
            await self._end(job, Cancelled(job.id))
        elif job in self._names:
            self._host.cancel(self._names[job])

    async def work(self) -> None:
        """Run jobs until this task is cancelled."""
        async with asyncio.TaskGroup() as workers:
            workers.create_task(self._tell_places())
            for _ in range(self._host.capacity):
                workers.create_task(self._work())

    async def drain(self, seconds: float) -> None:
        """Start nothing more, and give what runs this long to end."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        except TimeoutError:
            log.info("%d jobs go on at the next start", len(self._running))

    def hurry(self) -> None:
        """End `drain` at once."""
        self._quiet.set()

    async def _work(self) -> None:
        while True:
            await self._work_off()
            await self._filled.wait()

    async def _work_off(self) -> None:
        """Run jobs as long as some wait. What a job was is held by nobody who then waits for the next."""
        while (job := self._next()) is not None:
            self._running.append(job)
            self._quiet.clear()
            self._warm = [job.submit.request.model, *self._warm][: self._host.capacity]
            try:
                await self._run(job)
            except Exception:  # a fault of ours must leave nobody waiting
                log.exception("the job %s broke", job.id)
                if not job.state.ended:
                    await self._book.end(job, Failed(job.id, describe("internal")))
            finally:
                self._running.remove(job)
                if not self._running:
                    self._quiet.set()
                self._changed()

    def _next(self) -> Job | None:
        self._filled.clear()
        return None if self.draining else self._turns.take(self._warm)

    async def _run(self, job: Job) -> None:
        if job.attempts >= MAX_ATTEMPTS:
            detail = f"this job was begun {job.attempts} times"
            return await self._end(job, Failed(job.id, describe("worker_died", detail=detail)))
        began = time.monotonic()
        try:
            await self._book.start(job)
            end = await self._attempt(job)
        except asyncio.CancelledError:  # the daemon is stopped, which is not the job's fault
            self._book.unstart(job)
            raise
        if self._again(job, end):
            log.warning("the worker died over the job %s; it is tried again", job.id)
            return self._turns.put_back(job)
        log.info("the job %s: %s after %.2f s", job.id, type(end).__name__.lower(), time.monotonic() - began)
        return await self._end(job, end)

    async def _attempt(self, job: Job) -> End:
        """Run a job once and pass on what happens; returns how it ended."""
        self._begun += 1
        self._names[job] = name = str(self._begun)
        try:
            return await self._follow(job, name)
        except MissingTile:
            return Failed(job.id, describe("missing_pixels", detail="it was lost on the daemon's disk"))
        except DiskFull:
            return Failed(job.id, describe("daemon_disk_full"))
        except StoreFull:
            return Failed(job.id, describe("storage_full"))
        except Exception:
            log.exception("the job %s broke", job.id)
            return Failed(job.id, describe("internal"))
        finally:
            del self._names[job]

    async def _follow(self, job: Job, name: str) -> End:
        """Have the host run the job under `name`, and pass on what it says."""
        if job.cancelled:
            return Cancelled(job.id)
        submit = replace(job.submit, job=name, supersedes=None)
        async with aclosing(self._host.run(submit, self._book.pixels.of_request(job))) as messages:
            async for message in messages:
                if isinstance(message, Tile):
                    await self._book.store_result(job, message)
                    continue
                told: Record = replace(message, job=job.id)  # type: ignore[call-arg]
                if isinstance(told, TERMINAL):
                    return told
                await self._pass_on(job, told)
        raise RuntimeError("the host's messages stopped without an end")

    async def _pass_on(self, job: Job, message: Record) -> None:
        if isinstance(message, Result):
            await self._book.result(job, message)
        elif isinstance(message, Preview):
            job.session.show(message)
        else:
            self._book.tell(job, message)

    def _again(self, job: Job, end: End) -> bool:
        """Whether the job is to be tried once more, because it is its worker that died."""
        if not isinstance(end, Failed) or end.error.code != "worker_died" or job.cancelled:
            return False
        self._deaths[job] = self._deaths.get(job, 0) + 1
        return self._deaths[job] < MAX_DEATHS

    async def _end(self, job: Job, end: End) -> None:
        self._deaths.pop(job, None)
        if job.cancelled and isinstance(end, Failed) and end.error.code == "worker_died":
            end = Cancelled(job.id)
        await self._book.end(job, end)

    def _changed(self) -> None:
        self._filled.set()
        self._moved.set()

    async def _tell_places(self) -> None:
        """Tell every waiting client its place whenever that changed, but not more often than it can be read."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            await self._tell_all_places()
            await asyncio.sleep(TELL_INTERVAL)

    async def _tell_all_places(self) -> None:
        for place, job in enumerate(self._turns.order(), len(self._running)):
            if job.position != place and job.session.outbox is not None:
                job.position = place
                job.session.show(Position(job.id, place))
            if place % 50 == 49:
                await asyncio.sleep(0)  # others have their turn in between


def _owner(job: Job) -> str:
    return job.session.owner


def _session(job: Job) -> str:
    return job.session.id


def _model(job: Job) -> str:
    return job.submit.request.model
