"""A client of the daemon for programs that use asyncio: the command line, the demonstration and the tests.

async with connect(url, token) as client:
    async for event in client.generate(request, [pixels, mask]):
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence

from underpaint_protocol.client import ClientSession, Event
from underpaint_protocol.errors import ErrorInfo, describe, refusal_in
from underpaint_protocol.exceptions import ProtocolError
from underpaint_protocol.messages import MAX_FRAME, SUBPROTOCOL, TERMINAL, Error, Request, Welcome
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol


class Refused(Exception):
    """The daemon cannot be reached, or does not let this client in; `error` says it in words."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(f"{error.message} {error.hint}")
        self.error = error


class Client:
    """An open connection; made by `connect`."""

    def __init__(self, socket: ClientConnection, session: ClientSession, welcome: Welcome) -> None:
        self.welcome = welcome
        self._socket = socket
        self._session = session
        self._jobs: dict[str, asyncio.Queue[Event | None]] = {}

    async def generate(
        self, request: Request, blobs: Sequence[bytes] = (), *, job: str | None = None, previews: bool = True
    ) -> AsyncIterator[Event]:
        """Submit a job and yield its events; the last one is terminal, or the `Error` that refused it.

        Raises `Refused` if the connection is lost.
        """
        job = job or uuid.uuid4().hex
        events = self._jobs[job] = asyncio.Queue()
        try:
            for frame in self._session.submit(job, request, blobs, previews):
                await self._send(frame)
            while True:
                event = await events.get()
                if event is None:
                    raise Refused(describe("disconnected"))
                yield event
                if isinstance(event, TERMINAL) or (isinstance(event, Error) and job not in self._session.running):
                    return
        finally:
            del self._jobs[job]

    async def cancel(self, job: str) -> None:
        """Ask to stop a job; it still ends through `generate`."""
        await self._send(self._session.cancel(job))

    async def _send(self, frame: bytes) -> None:
        try:
            await self._socket.send(frame)
        except ConnectionClosed:
            raise Refused(describe("disconnected")) from None

    async def _listen(self) -> None:
        try:
            async for frame in self._socket:
                for event in self._session.receive(_bytes(frame)):
                    job = getattr(event, "job", None)
                    if job in self._jobs:
                        self._jobs[job].put_nowait(event)
        finally:
            for events in self._jobs.values():
                events.put_nowait(None)


@contextlib.asynccontextmanager
async def connect(url: str, token: str, *, client: str = "underpaint") -> AsyncIterator[Client]:
    """Connect to the daemon at `url` (`ws://` or `wss://`) and greet it.

    Raises `Refused` if it cannot be reached or refuses.
    """
    session = ClientSession(client)
    socket = await _open(url, token)
    try:
        await socket.send(session.hello())
        welcome = await _welcome(socket, session)
        connected = Client(socket, session, welcome)
        listener = asyncio.create_task(connected._listen())
        try:
            yield connected
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
    finally:
        await socket.close()


async def _welcome(socket: ClientConnection, session: ClientSession) -> Welcome:
    try:
        for event in session.receive(_bytes(await socket.recv())):
            if isinstance(event, Error):
                raise Refused(event.error)
    except (ConnectionClosed, ProtocolError):
        raise Refused(describe("disconnected")) from None
    if session.welcome is None:
        raise Refused(describe("out_of_order", detail="the daemon did not greet"))
    return session.welcome


async def _open(url: str, token: str) -> ClientConnection:
    try:
        return await open_socket(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            max_size=MAX_FRAME,
            proxy=None,
        )
    except InvalidStatus as refusal:
        raise Refused(refusal_in(refusal.response.body) or describe("unreachable", detail=url)) from None
    except (OSError, ValueError, TimeoutError, InvalidHandshake, InvalidURI):
        raise Refused(describe("unreachable", detail=url)) from None


def _bytes(frame: str | bytes) -> bytes:
    return frame if isinstance(frame, bytes) else frame.encode()
