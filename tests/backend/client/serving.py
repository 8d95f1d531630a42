"""The reference server behind a real websocket on loopback, whose connections a test may cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from underpaint_protocol.errors import ErrorInfo
from underpaint_protocol.messages import SUBPROTOCOL
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.protocol.reference import Line, ReferenceServer

TOKEN = "t" * 64


@dataclass
class Served:
    """A reference server that listens. `working` lets it paint; `refusal` answers handshakes."""

    core: ReferenceServer
    server: Server
    working: bool = True
    refusal: tuple[int, ErrorInfo] | None = None
    sockets: list[ServerConnection] = field(default_factory=list)
    handshakes: int = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def close(self, code: int) -> None:
        """Close all connections."""
        for socket in tuple(self.sockets):
            await socket.close(code)

    def cut(self) -> None:
        """All connections end without a word."""
        for socket in tuple(self.sockets):
            socket.transport.abort()


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Served]:
    """A reference server for the length of a test."""
    found: list[Served] = []

    def examine(connection: ServerConnection, request: Request) -> Response | None:
        found[0].handshakes += 1
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return connection.respond(401, "")  # type: ignore[arg-type]
        if found[0].refusal is None:
            return None
        status, error = found[0].refusal
        return connection.respond(status, json.dumps(error.to_wire()))  # type: ignore[arg-type]

    async def handle(socket: ServerConnection) -> None:
        await _converse(found[0], socket)

    protocols = [Subprotocol(SUBPROTOCOL)]
    async with serve(handle, "127.0.0.1", 0, subprotocols=protocols, process_request=examine) as server:
        found.append(Served(ReferenceServer(), server))
        working = asyncio.create_task(_work(found[0]))
        yield found[0]
        working.cancel()
        found[0].cut()


async def _work(served: Served) -> None:
    while True:
        await asyncio.sleep(0.002)
        if served.working:
            served.core.work()


async def _converse(served: Served, socket: ServerConnection) -> None:
    line = served.core.connect()
    served.sockets.append(socket)
    sending = asyncio.create_task(_send(line, socket))
    try:
        async for frame in socket:
            assert isinstance(frame, bytes)
            line.receive(frame)
    except ConnectionClosed:
        pass
    finally:
        sending.cancel()
        served.sockets.remove(socket)
        line.drop()


async def _send(line: Line, socket: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while line.closed is None:
            while (frame := line.next_frame()) is not None:
                await socket.send(frame)
            await asyncio.sleep(0.002)
        await socket.close(line.closed if line.closed > 4000 else 1012)
