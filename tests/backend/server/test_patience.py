"""How long the daemon waits for somebody who does not say who they are. Anybody can open a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from underpaint_backend.server import connection, daemon
from underpaint_backend.server.access.handshake import Gate
from underpaint_backend.server.access.tokens import Tokens
from underpaint_backend.server.daemon import Daemon, Options
from underpaint_protocol.messages import Cancel, Error, Hello, vocabulary
from websockets.exceptions import ConnectionClosed

from tests.backend.server.calling import ask, opened_at
from tests.backend.server.scripted_host import ScriptedHost

SOON = 0.3
"""Seconds that the daemon waits here, in place of its ten."""


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, str]]:
    """The address and the token of a daemon that soon has enough."""
    assert connection.HELLO_TIMEOUT == daemon.OPEN_TIMEOUT == 10
    monkeypatch.setattr(connection, "HELLO_TIMEOUT", SOON)
    monkeypatch.setattr(daemon, "OPEN_TIMEOUT", SOON)
    running = Daemon(ScriptedHost(1), Options(Gate(Tokens(tmp_path / "token")), port=0, home=tmp_path))
    async with running.listening() as server:
        yield running.url(server), (tmp_path / "token").read_text().strip()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"], ids=["nothing", "half a request"])
async def test_a_handshake_that_is_not_finished_is_cut_off(place: tuple[str, str], said: bytes) -> None:
    """Whoever holds sockets open without a token does not hold them for long."""
    host, _, port = place[0].rpartition("//")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(said)
    async with asyncio.timeout(10):
        await reader.read()
        assert reader.at_eof()
    writer.close()


async def test_a_client_that_does_not_greet_is_closed_with_the_reason(place: tuple[str, str]) -> None:
    """What else it says does not count, though it is answered."""
    async with await opened_at(*place) as socket, asyncio.timeout(10):
        answer = await ask(socket, Cancel("a"))
        assert isinstance(answer, Error)
        assert answer.error.code == "out_of_order"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "no hello came")


async def test_whoever_greeted_may_be_silent(place: tuple[str, str]) -> None:
    """An artist who thinks for a while is still connected."""
    async with await opened_at(*place) as socket, asyncio.timeout(10):
        await ask(socket, Hello("test"))
        await asyncio.sleep(2 * SOON)
        await socket.send(vocabulary.encode(Cancel("a")))
        assert isinstance(vocabulary.decode(await socket.recv(decode=False)), Error)
