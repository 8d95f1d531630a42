"""The local host with real worker processes, without a server around it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from underpaint_backend.server.hosts.local import MAX_FAILED_STARTS, LocalHost, LocalOptions
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Cancelled, Done, Failed, Request, Submit, Worker

LONG = Submit("long", Request("primer-inpaint", "text_to_image", 64, 64, steps=500))


@pytest.fixture
async def host() -> AsyncIterator[LocalHost]:
    """A host with the built-in model whose worker was just started."""
    local = LocalHost(LocalOptions(device="cpu", threads=1))
    await local.start(lambda worker: None)
    yield local
    await local.close()


async def run(host: LocalHost, submit: Submit) -> list[Record]:
    return [message async for message in host.run(submit, [])]


async def test_a_job_may_come_before_the_worker_is_ready(host: LocalHost) -> None:
    """A job that is given at once waits for the worker and is done then."""
    assert host.worker.state == "starting"
    messages = await run(host, Submit("a", Request("primer-inpaint", "text_to_image", 64, 64, steps=1)))
    assert isinstance(messages[-1], Done)
    assert host.worker.state == "ready"
    assert host.worker.device.startswith("cpu")


async def test_a_job_can_be_cancelled_before_the_worker_is_ready(host: LocalHost) -> None:
    """Cancelling does not wait for the worker's libraries."""
    running = asyncio.create_task(run(host, LONG))
    await asyncio.sleep(0.05)
    host.cancel("long")
    async with asyncio.timeout(1):
        assert await running == [Cancelled("long")]


async def test_free_memory_is_told_while_a_job_runs(host: LocalHost) -> None:
    """Memory can be asked for at any time; before there is a worker, there is none to tell."""
    assert await host.free_memory() is None
    running = asyncio.create_task(run(host, LONG))
    while host.worker.state != "ready":
        await asyncio.sleep(0.05)
    memory = await host.free_memory()
    assert memory is not None
    assert 0 < memory.free <= memory.total
    host.cancel("long")
    await running


async def test_a_worker_that_never_starts_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After some failed starts the host says so, and jobs fail with the reason instead of waiting for ever."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    host = LocalHost(LocalOptions())
    states: list[Worker] = []
    await host.start(states.append)
    (end,) = await run(host, LONG)
    await host.close()
    assert isinstance(end, Failed)
    assert end.error.code == "worker_unavailable"
    assert "exit code 7" in end.error.message
    assert [worker.state for worker in states] == ["restarting"] * (MAX_FAILED_STARTS - 1) + ["failed"]
