"""What every host promises the server, tried on each of them with real workers and no server around.

A new host is one line in `HOSTS`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import pytest_asyncio
from underpaint_backend.server.hosts import Host
from underpaint_backend.server.hosts.local import LocalHost, LocalOptions
from underpaint_protocol.messages import Cancelled, Done, Failed, Request, Result, Submit, Tile
from underpaint_protocol.tiles import name_of

from tests.backend.server.host_jobs import one_by_one, run

SHORT = Request("primer-inpaint", "text_to_image", 64, 64, steps=1)
LONG = Submit("long", Request("primer-inpaint", "text_to_image", 64, 64, steps=500))


HOSTS: dict[str, Callable[[], Host]] = {"local": lambda: LocalHost(LocalOptions(device="cpu", threads=1))}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextlib.asynccontextmanager
async def started(name: str) -> AsyncIterator[Host]:
    """A host with the built-in model whose worker was just started."""
    running = HOSTS[name]()
    await running.start(lambda worker: None)
    yield running
    await running.close()


@pytest_asyncio.fixture(params=HOSTS, scope="module", loop_scope="module")
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    """One host of each kind for all tests that leave it as it was. Its worker has done a job."""
    async with started(request.param) as running:
        assert isinstance((await run(running, Submit("first", SHORT)))[-1], Done)
        yield running


@pytest_asyncio.fixture(params=HOSTS, loop_scope="module")
async def fresh(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    """A host for one test, whose worker is still starting."""
    async with started(request.param) as running:
        assert running.worker.state == "starting"
        yield running


async def test_a_job_may_come_before_the_worker_is_ready(fresh: Host) -> None:
    """A job that is given at once waits for the worker and is done then."""
    messages = await run(fresh, Submit("a", SHORT))
    assert isinstance(messages[-1], Done)
    assert fresh.worker.state == "ready"
    assert fresh.worker.device.startswith("cpu")


async def test_a_job_can_be_cancelled_before_the_worker_is_ready(fresh: Host) -> None:
    """Cancelling does not wait for the worker's libraries."""
    running = asyncio.create_task(run(fresh, LONG))
    await asyncio.sleep(0.05)
    fresh.cancel("long")
    async with asyncio.timeout(1):
        assert await running == [Cancelled("long")]


async def test_a_cancel_while_the_pixels_travel_is_not_lost(host: Host) -> None:
    """A job that is cancelled before the worker has all of it still ends in `cancelled`."""
    pixels = bytes(256 << 10)
    tiles = [Tile(name_of(pixels), len(pixels), pixels)] * 128
    running = asyncio.create_task(run(host, LONG, tiles))
    await asyncio.sleep(0.005)
    host.cancel("long")
    async with asyncio.timeout(30):
        assert isinstance((await running)[-1], Cancelled)


async def test_free_memory_is_told_while_a_job_runs(host: Host) -> None:
    """Memory can be asked for at any time, in the middle of a job too."""
    messages = host.run(LONG, one_by_one([]))
    await anext(messages)
    memory = await host.free_memory()
    assert memory is not None
    assert 0 < memory.free <= memory.total
    host.cancel("long")
    assert [message async for message in messages][-1] == Cancelled("long")


async def test_what_a_host_knows_before_there_is_a_worker(fresh: Host) -> None:
    """Its models are known while the worker is still starting; there is no memory to tell of."""
    assert "primer-inpaint" in [model.id for model in fresh.models()]
    assert await fresh.free_memory() is None


async def test_a_failing_job_ends_like_any_other(host: Host) -> None:
    """A job that the worker cannot do ends in `failed` with its reason, and the next one is done."""
    wrong = Submit("wrong", Request("nothing-there", "text_to_image", 64, 64))
    (*_, end) = await run(host, wrong)
    assert isinstance(end, Failed)
    assert end.error.code == "unknown_model"
    (*_, end) = await run(host, Submit("right", SHORT))
    assert isinstance(end, Done)


async def test_messages_of_a_cancelled_job_do_not_reach_the_next(host: Host) -> None:
    """What a worker still says of a job that nobody follows any more is dropped, pixels included."""
    messages = host.run(Submit("left", replace(SHORT, seed=1)), one_by_one([]))
    async for message in messages:
        if isinstance(message, Tile):
            break
    await messages.aclose()
    following = await run(host, Submit("next", SHORT))
    named = {name for message in following if isinstance(message, Result) for name in message.image.tiles}
    assert {message.name for message in following if isinstance(message, Tile)} == named
    assert all(getattr(message, "job", "next") == "next" for message in following)


async def test_memory_is_nobodys_when_the_worker_dies(fresh: Host) -> None:
    """Who asks for memory while the worker goes away gets None, not an exception."""
    await run(fresh, Submit("a", SHORT))
    asked = asyncio.create_task(fresh.free_memory())
    await asyncio.sleep(0)
    await fresh.close()
    async with asyncio.timeout(5):
        answer = await asked
    assert answer is None or answer.total > 0


async def test_what_the_tiles_raise_is_raised_to_who_runs_the_job(host: Host) -> None:
    """A job whose pixels cannot be read ends with that exception, and the next one is done."""

    async def broken() -> AsyncIterator[Tile]:
        raise LookupError("gone")
        yield

    with pytest.raises(LookupError):
        async for _ in host.run(LONG, broken()):
            pass
    (*_, end) = await run(host, Submit("right", SHORT))
    assert isinstance(end, Done)
