"""What was added or taken away while the daemon runs is in its list as soon as a client comes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from underpaint_backend.client import connect
from underpaint_backend.server import daemon as module
from underpaint_backend.server.access.handshake import Gate
from underpaint_backend.server.access.tokens import Tokens
from underpaint_backend.server.daemon import Daemon, Options
from underpaint_protocol.messages import Model

from tests.backend.server.scripted_host import ScriptedHost
from tests.backend.server.test_pulls import HERE


class Shelf(ScriptedHost):
    """A host that sees what lies on the shelf whenever it looks."""

    def __init__(self) -> None:
        super().__init__(1)
        self.shelf: tuple[Model, ...] = ()
        self.seen: tuple[Model, ...] = ()

    def models(self) -> tuple[Model, ...]:
        return self.seen

    async def refresh(self) -> None:
        self.seen = self.shelf


async def test_a_client_that_comes_has_the_daemon_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one that was there hears of it at once, and need not wait for the next round of chores."""
    monkeypatch.setattr(module, "CHORES_INTERVAL", 3600.0)
    host = Shelf()
    daemon = Daemon(host, Options(Gate(Tokens(tmp_path / "token")), port=0, home=tmp_path))
    token = (tmp_path / "token").read_text().strip()
    async with daemon.listening() as server, connect(daemon.url(server), token) as krita:
        await asyncio.sleep(0.2)
        assert not krita.welcome.models
        host.shelf = (HERE,)
        async with connect(daemon.url(server), token):
            pass
        async with asyncio.timeout(5):
            while krita.welcome.models != (HERE,):
                await asyncio.sleep(0.01)
