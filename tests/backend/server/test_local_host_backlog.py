"""A worker that paints faster than its pictures can be stored: it waits, and the daemon's memory does not grow."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from underpaint_backend.server.hosts import local
from underpaint_backend.server.hosts.backlog import MAX_WAITING
from underpaint_backend.server.hosts.local import LocalHost, LocalOptions
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Cancelled, Done, Failed, Request, Submit, Tile

from tests.backend.server.host_jobs import one_by_one, run

TILE = 256 << 10
TILES = 200
JOB = Submit("job", Request("any", "text_to_image", 64, 64))
ON_THE_WAY = 2 << 20
"""Bytes that may be in the pipe and on either side of it."""

PAINTER = textwrap.dedent("""
    import os, sys
    from threading import Thread
    from underpaint_backend.worker.inbox import Inbox
    from underpaint_backend.worker.interface import Ready
    from underpaint_backend.worker.outbox import Outbox
    from underpaint_protocol.messages import Cancelled, Done, Tile
    from underpaint_protocol.tiles import name_of

    count, size, sent = int(sys.argv[1]), int(sys.argv[2]), open(sys.argv[3], "ab", buffering=0)
    pixels = bytes(size)
    outbox = Outbox(sys.stdout.buffer)
    inbox = Inbox(sys.stdin.buffer, outbox)
    inbox.memory = lambda: (1, 2)

    def read():
        inbox.read()
        os._exit(0)

    Thread(target=read).start()
    outbox.send(Ready("a painter without a model"))
    while True:
        job = inbox.next()
        for number in range(count):
            if job.cancelled.is_set():
                outbox.send(Cancelled(job.submit.job))
                break
            outbox.send(Tile(name_of(pixels), size, pixels))
            sent.write(b"x")
        else:
            outbox.send(Done(job.submit.job, 0.1))
        inbox.forget(job)
    """)
"""A worker that sends many tiles for each job, as fast as they are taken."""


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """A file to which the painter adds a byte for each tile that it got rid of."""
    (tmp_path / "sent").touch()
    return tmp_path / "sent"


@pytest.fixture
async def host(sent: Path) -> AsyncIterator[LocalHost]:
    """A host whose worker is the painter."""
    host = LocalHost(LocalOptions())
    host._command = [sys.executable, "-P", "-c", PAINTER, str(TILES), str(TILE), str(sent)]
    await host.start(lambda worker: None)
    yield host
    await host.close()


async def count_at_rest(sent: Path) -> int:
    """How many tiles the painter got rid of, once that does not change any more."""
    before = -1
    while (now := sent.stat().st_size) != before:
        before = now
        await asyncio.sleep(0.3)
    return now


async def all_of(messages: AsyncIterator[Record]) -> tuple[int, Record]:
    """How many tiles come, and what comes last."""
    tiles, last = 0, None
    async for last in messages:
        tiles += isinstance(last, Tile)
    assert last is not None
    return tiles, last


async def test_a_slow_store_makes_the_worker_wait(host: LocalHost, sent: Path) -> None:
    """The daemon holds few of the tiles that are finished; when the store goes on, all come, in order, to the end."""
    messages = host.run(JOB, one_by_one([]))
    assert isinstance(await anext(messages), Tile)
    assert await count_at_rest(sent) * TILE <= MAX_WAITING + ON_THE_WAY
    assert await all_of(messages) == (TILES - 1, Done("job", 0.1))


async def test_a_cancel_goes_past_what_waits(host: LocalHost, sent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker hears of it at once, and is not taken for one that hangs, however long the store takes."""
    monkeypatch.setattr(local, "CANCEL_PATIENCE", 1.0)
    messages = host.run(JOB, one_by_one([]))
    assert isinstance(await anext(messages), Tile)
    await count_at_rest(sent)
    host.cancel("job")
    await asyncio.sleep(1.2)
    tiles, end = await all_of(messages)
    assert end == Cancelled("job")
    assert tiles * TILE <= MAX_WAITING + ON_THE_WAY


async def test_a_worker_that_hangs_after_what_waits_is_killed(
    host: LocalHost, sent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once all that it said was stored, a worker that does not end its cancelled job has had its time."""
    monkeypatch.setattr(local, "CANCEL_PATIENCE", 0.3)
    messages = host.run(JOB, one_by_one([]))
    assert isinstance(await anext(messages), Tile)
    await count_at_rest(sent)
    os.kill(worker_of(host), signal.SIGSTOP)
    host.cancel("job")
    async with asyncio.timeout(10):
        _, end = await all_of(messages)
    assert isinstance(end, Failed)


async def test_a_worker_that_dies_while_it_waits(host: LocalHost, sent: Path) -> None:
    """What it had sent comes, then the reason; the next worker does the job."""
    messages = host.run(JOB, one_by_one([]))
    assert isinstance(await anext(messages), Tile)
    await count_at_rest(sent)
    os.kill(worker_of(host), signal.SIGKILL)
    async with asyncio.timeout(10):
        _, end = await all_of(messages)
        assert isinstance(end, Failed)
        assert end.error.code == "worker_died"
        assert (await run(host, JOB))[-1] == Done("job", 0.1)


async def test_a_job_that_is_left_while_its_worker_waits(host: LocalHost, sent: Path) -> None:
    """Nobody stores what comes: it is dropped, the worker lives, and the next job has its own tiles alone."""
    messages = host.run(JOB, one_by_one([]))
    await anext(messages)
    await count_at_rest(sent)
    first = worker_of(host)
    async with asyncio.timeout(10):
        await messages.aclose()
        assert await all_of(host.run(JOB, one_by_one([]))) == (TILES, Done("job", 0.1))
    assert worker_of(host) == first


async def test_memory_is_told_once_the_store_goes_on(host: LocalHost, sent: Path) -> None:
    """The answer comes after the tiles; who asks for it holds up nobody."""
    messages = host.run(JOB, one_by_one([]))
    await anext(messages)
    await count_at_rest(sent)
    asked = asyncio.create_task(host.free_memory())
    assert await all_of(messages) == (TILES - 1, Done("job", 0.1))
    async with asyncio.timeout(5):
        memory = await asked
    assert memory is not None
    assert (memory.free, memory.total) == (1, 2)


async def test_a_host_is_closed_while_its_worker_waits(host: LocalHost, sent: Path) -> None:
    """No process is left behind, and whoever follows the job is told."""
    messages = host.run(JOB, one_by_one([]))
    await anext(messages)
    await count_at_rest(sent)
    process = host._process
    assert process is not None
    async with asyncio.timeout(10):
        await host.close()
        _, end = await all_of(messages)
    assert isinstance(end, Failed)
    assert end.error.code == "shutting_down"
    assert process.returncode is not None


def worker_of(host: LocalHost) -> int:
    """The worker's process."""
    assert host._process is not None
    return host._process.pid
