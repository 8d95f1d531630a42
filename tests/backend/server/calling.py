"""A client whose connections the test opens and cuts as it likes; and frames sent by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from underpaint_backend.launch import Launched
from underpaint_protocol.client import ClientSession, Event
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    SUBPROTOCOL,
    TERMINAL,
    Error,
    Hello,
    Models,
    Progress,
    Request,
    Status,
    Welcome,
    vocabulary,
)
from underpaint_protocol.vocabulary import FROM_SERVER
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

PATIENCE = 90.0
"""Seconds until a test gives up waiting: a worker imports its libraries on a busy machine meanwhile."""

SIDE = 96
GRAY = bytes([128, 128, 128, 255]) * (SIDE * SIDE)
SELECTION = b"".join(bytes([255 if 16 <= x < 80 and 16 <= y < 80 else 0 for x in range(SIDE)]) for y in range(SIDE))
IMAGE, _PIXELS = image_of(SIDE, SIDE, 4, GRAY)
MASK, _MASK = image_of(SIDE, SIDE, 1, SELECTION)
TILES = {**_PIXELS, **_MASK}
INPAINT = Request("primer-inpaint", "inpaint", SIDE, SIDE, prompt="a red circle", steps=6, image=IMAGE, mask=MASK)
LONG = Request("primer-inpaint", "text_to_image", SIDE, SIDE, prompt="blue", steps=1000)
SHORT = Request("primer-inpaint", "text_to_image", SIDE, SIDE, prompt="blue", steps=2)


async def opened(daemon: Launched, token: str | None = None) -> ClientConnection:
    """A new websocket to a daemon, on which nothing was said."""
    return await opened_at(daemon.url, token or daemon.token)


async def opened_at(url: str, token: str) -> ClientConnection:
    """The same, by address."""
    return await open_socket(
        url,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        additional_headers={"Authorization": f"Bearer {token}"},
        compression=None,
        proxy=None,
        max_size=None,
        max_queue=None,  # or who leaves without having heard all waits ten seconds for the end
    )


async def ask(socket: ClientConnection, message: Record | bytes | str) -> Record:
    """Send a message and return the answer; what the daemon says of its worker, which may be starting, is none."""
    await socket.send(vocabulary.encode(message) if isinstance(message, Record) else message)
    while True:
        answer = vocabulary.decode(await socket.recv(decode=False), FROM_SERVER)
        if not isinstance(answer, (Status, Models)):
            return answer


async def greeted(daemon: Launched, token: str | None = None) -> tuple[ClientConnection, Welcome]:
    """A new websocket on which hello and welcome were said."""
    socket = await opened(daemon, token)
    welcome = await ask(socket, Hello("test"))
    assert isinstance(welcome, Welcome)
    return socket, welcome


class Caller:
    """A client session with at most one connection at a time. `events` is all that it heard in its life."""

    def __init__(self, daemon: Launched, session: str | None = None, token: str | None = None) -> None:
        self.daemon = daemon
        self.token = token
        self.core = ClientSession("test", session=session)
        self.events: list[Event] = []
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> Caller:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave no job behind that would keep the worker from other tests."""
        for job in self.core.running:
            self.core.cancel(job)
        with contextlib.suppress(ConnectionClosed):
            await self.send()
        await self.socket.close()

    @property
    def socket(self) -> ClientConnection:
        """The connection."""
        assert self._socket is not None
        return self._socket

    async def connect(self) -> None:
        """Open a connection and wait until the session goes on."""
        self._socket = await opened(self.daemon, self.token)
        self.core.connected()
        while not self.core.ready:
            await self._turn()

    def cut(self) -> None:
        """Lose the connection, as when a cable is pulled."""
        self.socket.transport.abort()
        self.core.disconnected()

    def submit(self, job: str, request: Request, **more: object) -> None:
        """Submit a job; it is sent with the next `until`."""
        tiles: Mapping[bytes, bytes] = TILES if request.image is not None else {}
        self.core.submit(job, request, tiles, **more)  # type: ignore[arg-type]

    async def until(self, wanted: Callable[[Event], bool]) -> Event:
        """The first such event, heard already or still to come."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                await self._turn()

    async def end_of(self, job: str) -> Event:
        """How a job ended."""
        return await self.until(lambda event: _is_of(event, job) and isinstance(event, (*TERMINAL, Error)))

    async def denoising(self, job: str) -> None:
        """Wait until the model works on a job."""
        await self.until(lambda event: isinstance(event, Progress) and event.job == job and event.step > 1)

    async def send(self) -> None:
        """Send what is to be said."""
        while (frame := self.core.next_frame()) is not None:
            await self.socket.send(frame)

    def of(self, job: str) -> list[Event]:
        """What was heard of one job."""
        return [event for event in self.events if _is_of(event, job)]

    async def _turn(self) -> list[Event]:
        """Send what is to be said, and take one frame."""
        await self.send()
        heard = list(self.core.receive(await self.socket.recv(decode=False)))
        self.events += heard
        await self.send()
        return heard


def _is_of(event: Event, job: str) -> bool:
    return getattr(event, "job", None) == job


def worker_of(daemon: Launched) -> int:
    """Process id of the daemon's worker."""
    (child,) = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    return int(child)
