"""What the daemon keeps in memory of those who were there."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from underpaint_backend.client import connect
from underpaint_backend.server import daemon as module
from underpaint_backend.server.access.handshake import Gate
from underpaint_backend.server.access.tokens import Tokens
from underpaint_backend.server.connection import Connection
from underpaint_backend.server.daemon import Daemon, Options

from tests.backend.server.scripted_host import ScriptedHost


@pytest.fixture
def a_quiet_time() -> Iterator[None]:
    """Python by itself looks for no garbage, as when few new things are made."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("a_quiet_time")
async def test_a_daemon_that_is_not_busy_keeps_nothing_of_visitors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection refers to itself in circles, and is gone all the same soon after its client."""
    monkeypatch.setattr(module, "CHORES_INTERVAL", 0.05)
    daemon = Daemon(ScriptedHost(1), Options(Gate(Tokens(tmp_path / "token")), port=0, home=tmp_path))
    token = (tmp_path / "token").read_text().strip()
    async with daemon.listening() as server:
        for _ in range(3):
            async with connect(daemon.url(server), token):
                assert connections()
        async with asyncio.timeout(10):
            while connections():
                await asyncio.sleep(0.02)


def connections() -> int:
    """How many there are, living or forgotten."""
    return sum(isinstance(thing, Connection) for thing in gc.get_objects())
