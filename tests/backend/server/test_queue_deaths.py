"""Jobs over which workers and daemons die, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from underpaint_backend.server.book import Book
from underpaint_backend.server.queue import MAX_ATTEMPTS, TELL_INTERVAL, JobQueue
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import Cancelled, Failed

from tests.backend.server.books import accepted, opened, told
from tests.backend.server.scripted_host import Run, ScriptedHost, scripted

DIED = Failed("any", describe("worker_died", detail="it was killed"))


@asynccontextmanager
async def working(book: Book, host: ScriptedHost) -> AsyncIterator[JobQueue]:
    """A queue over a book that gives jobs to a host."""
    queue = JobQueue(scripted(host), book)
    work = asyncio.create_task(queue.work())
    try:
        yield queue
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


async def running(host: ScriptedHost) -> Run:
    """The only job that runs, once it does."""
    async with asyncio.timeout(10):
        while not host.runs:
            await asyncio.sleep(0.005)
    [run] = host.runs.values()
    return run


async def test_a_job_that_is_cancelled_between_two_tries_is_forgotten(tmp_path: Path) -> None:
    """How often its worker died is of no use to anybody once it has ended."""
    host = ScriptedHost(1)
    async with opened(tmp_path) as (book, _), working(book, host) as queue:
        job = await accepted(book, book.new_session("anna", "test"))
        gone = weakref.ref(job)
        await queue.add(job)
        run = await running(host)
        queue.draining = True  # so that it waits
        await host.say(run, DIED)
        await asyncio.sleep(2 * TELL_INTERVAL)  # until it has been told its place
        assert not host.runs
        assert not job.state.ended
        await queue.cancel(job)
        assert isinstance(told(job.session)[-1], Cancelled)
        book.forget(job)
        del job, run
        await accepted(book, book.new_session("bert", "test"))  # which the journal writes after what it forgets
        gc.collect()
        assert gone() is None


async def test_a_job_that_kills_its_daemon_each_time_is_given_up(tmp_path: Path) -> None:
    """After five starts in all lives of the daemon it fails, and is not tried once more."""
    async with opened(tmp_path) as (book, _):
        await accepted(book, book.new_session("anna", "test"))
    for _ in range(MAX_ATTEMPTS):
        async with opened(tmp_path) as (book, [job]):
            await book.start(job)
    host = ScriptedHost(1)
    async with opened(tmp_path) as (book, [job]), working(book, host) as queue:
        await queue.add(job)
        async with asyncio.timeout(10):
            while not isinstance(end := told(job.session)[-1], Failed):
                await asyncio.sleep(0.005)
        assert end.error == describe("worker_died", detail="this job was begun 5 times")
        assert job.attempts == 5
        assert not host.runs
        assert book.usage.total() == 0
