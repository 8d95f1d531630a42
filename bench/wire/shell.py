"""A client that does as the plugin does: the protocol's core, and a websocket that moves its bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from underpaint_protocol.client import ClientSession
from underpaint_protocol.downloads import Event
from underpaint_protocol.messages import MAX_FRAME, SUBPROTOCOL, Error
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

E = TypeVar("E")


class Shell:
    """An open connection and its session."""

    def __init__(self, socket: ClientConnection, session: ClientSession) -> None:
        self.session = session
        self._socket = socket
        self._events: deque[Event] = deque()

    async def until(self, kind: type[E]) -> E:
        """The next event of one type; what comes before it is passed over.

        Raises `RuntimeError` if the daemon refuses something, and what websockets raises if the connection ends.
        """
        while True:
            await self.flush()
            while self._events:
                event = self._events.popleft()
                if isinstance(event, kind):
                    return event
                if isinstance(event, Error):
                    raise RuntimeError(event.error.message)
            self._events.extend(self.session.receive(await self._socket.recv(decode=False)))

    async def flush(self) -> None:
        """Send what there is to say."""
        while (frame := self.session.next_frame()) is not None:
            await self._socket.send(frame)

    async def settle(self, seconds: float = 0.2) -> None:
        """Take what comes until there is silence for so long."""
        with contextlib.suppress(TimeoutError):
            while True:
                await self.flush()
                self._events.extend(
                    self.session.receive(await asyncio.wait_for(self._socket.recv(decode=False), seconds))
                )


@contextlib.asynccontextmanager
async def open_shell(url: str, token: str, encodings: Sequence[str] = ("raw",)) -> AsyncIterator[Shell]:
    """Connect to a daemon and agree on a session."""
    async with connect(
        url,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        additional_headers={"Authorization": f"Bearer {token}"},
        compression=None,
        max_size=MAX_FRAME,
        proxy=None,
    ) as socket:
        session = ClientSession("bench", encodings)
        session.connected()
        shell = Shell(socket, session)
        while not session.ready:
            await shell.flush()
            shell.session.receive(await socket.recv(decode=False))
        yield shell
