"""A session kept going over as many connections as it takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable
from random import random
from socket import SO_RCVBUF, SOL_SOCKET
from socket import socket as Line

from underpaint_protocol.client import ClientSession, Event
from underpaint_protocol.exceptions import ProtocolError
from underpaint_protocol.messages import MAX_FRAME, MAX_TILES, SUBPROTOCOL, Have, vocabulary
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

PING_SECONDS = 2.0
PATIENCE = 6.0
"""Seconds after which a connection on which no ping is answered counts as lost."""
UNHEARD = 1 << 62
"""Queries from here on are not the session's, which does not mind their answers."""
RECEIVED = 64 << 10
"""Bytes that the system holds for a client, few, so that it is soon felt when one stops reading."""
MAX_PAUSE = 0.5
"""Seconds between two tries to connect, at most."""


class Talk:
    """Moves frames between a session and the daemon, and connects again whenever the connection is lost."""

    def __init__(
        self,
        session: ClientSession,
        url: str,
        token: str,
        on_event: Callable[[Event], None],
        on_ready: Callable[[], None] = lambda: None,
        on_lost: Callable[[Exception | None], None] = lambda reason: None,
    ) -> None:
        """`on_ready` is called when a connection's session is agreed on, `on_lost` when a connection or a try ends."""
        self.session = session
        self._url = url
        self._token = token
        self._on_event = on_event
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._raw: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._leaving = False
        self._reading = asyncio.Event()
        self._reading.set()
        self._socket: ClientConnection | None = None

    async def run(self) -> None:
        """Talk until `leave` is called. Raises what the callbacks raise."""
        while not self._leaving:
            reason: Exception | None = None
            try:
                await self._connection()
            except (OSError, TimeoutError, WebSocketException, ProtocolError) as error:
                reason = error
            self._on_lost(reason)
            if reason is not None:
                await asyncio.sleep(MAX_PAUSE * random())

    def wake(self) -> None:
        """There may be something to send."""
        self._filled.set()
        self._idle.clear()

    def send_raw(self, frame: bytes) -> None:
        """Send a frame past the session, if there is a connection."""
        self._raw.append(frame)
        self.wake()

    def drop(self) -> None:
        """Lose the connection without a word."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def stall(self, seconds: float, questions: int = 80) -> None:
        """Ask the daemon for more than the line holds, and read nothing for a while."""
        self._reading.clear()
        for query in range(questions):
            self.send_raw(vocabulary.encode(Have(query + UNHEARD, tuple(map(os.urandom, [16] * MAX_TILES)))))
        await asyncio.sleep(seconds)
        self._reading.set()

    async def leave(self) -> None:
        """End the conversation once all that is to be said was sent."""
        self._leaving = True
        await self.hang_up()

    async def hang_up(self) -> None:
        """Close this connection properly, so that the daemon hears all that was sent."""
        if self._socket is not None:
            await self._idle.wait()
        if self._socket is not None:
            await self._socket.close()

    async def _connection(self) -> None:
        socket = await connect(
            self._url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {self._token}"},
            compression=None,
            max_size=MAX_FRAME,
            max_queue=2,
            proxy=None,
            open_timeout=PATIENCE,
            ping_interval=PING_SECONDS,
            ping_timeout=PATIENCE,
            close_timeout=1,
        )
        try:
            await self._converse(socket)
        finally:
            self._socket = None
            self._idle.set()
            self.session.disconnected()
            await socket.close()

    async def _converse(self, socket: ClientConnection) -> None:
        self._socket = socket
        line: Line = socket.transport.get_extra_info("socket")
        line.setsockopt(SOL_SOCKET, SO_RCVBUF, RECEIVED)
        self._raw.clear()
        self.session.connected()
        self.wake()
        sender = asyncio.create_task(self._send(socket))
        try:
            greeted = False
            async for frame in socket:
                for event in self.session.receive(frame if isinstance(frame, bytes) else frame.encode()):
                    self._on_event(event)
                if self.session.ready and not greeted:
                    greeted = True
                    self._on_ready()
                self.wake()
                await self._reading.wait()
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketException):  # whoever receives hears of it too
                await sender

    async def _send(self, socket: ClientConnection) -> None:
        try:
            while True:
                await self._filled.wait()
                frame = self._raw.popleft() if self._raw else self.session.next_frame()
                if frame is None:
                    self._filled.clear()
                    self._idle.set()
                else:
                    await socket.send(frame)
        finally:
            await socket.close()
