"""A connection that is opened again whenever it is lost: bytes between a socket and the protocol's core."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from underpaint_protocol.client import ClientSession, Event
from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.exceptions import ProtocolError
from underpaint_protocol.messages import RESUMED_ELSEWHERE, REVOKED
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from .dialing import Address, Refused, dial, pauses

GREETING_SECONDS = 10.0
"""How long a daemon that took the connection may take to agree on a session."""

FATAL = {
    RESUMED_ELSEWHERE: describe("resumed_elsewhere"),
    REVOKED: describe("unauthorized"),
    CloseCode.MESSAGE_TOO_BIG: describe("malformed_message", detail="a message was too large"),
}
"""Close codes after which another connection would fare no better."""


class Line:
    """Carries one session's frames over as many connections as it takes."""

    def __init__(
        self,
        address: Address,
        session: ClientSession,
        deliver: Callable[[Event], None],
        *,
        reconnect: bool,
        patience: float,
    ) -> None:
        """`deliver` takes each event; after `patience` seconds without a connection the line gives up."""
        self.agreed = asyncio.Event()
        self._address = address
        self._session = session
        self._deliver = deliver
        self._reconnect = reconnect
        self._patience = patience
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._pauses = pauses()
        self._pause = 0.0
        self._deadline = 0.0

    def wake(self) -> None:
        """There may be something to send."""
        self._idle.clear()
        self._news.set()

    async def flushed(self) -> None:
        """Wait until all is sent; not at all if there is nobody to send it to."""
        if self._session.ready:
            await self._idle.wait()

    async def keep(self) -> ErrorInfo:
        """Stay connected for as long as that is possible, and say why it is not any more."""
        try:
            socket = await dial(self._address)
            self._deadline = asyncio.get_running_loop().time() + self._patience
            while True:
                await self._lasting(socket)
                socket = await self._again()
        except Refused as refused:
            return refused.error

    async def _lasting(self, socket: ClientConnection) -> None:
        """Use a connection until it is lost. Raises `Refused` if another would be useless."""
        loop = asyncio.get_running_loop()
        self._session.connected()
        self.wake()
        began, heard = loop.time(), self._session.last_seq
        try:
            await self._exchange(socket)
        except ProtocolError as error:
            raise Refused(describe("out_of_order", detail=error)) from None
        finally:
            agreed = self._session.ready
            self._session.disconnected()
        fatal = FATAL.get(socket.close_code or 0)
        if fatal is not None or not self._reconnect:
            raise Refused(fatal or describe("disconnected"))
        if agreed:
            self._deadline = loop.time() + self._patience
            if self._session.last_seq != heard or loop.time() - began > self._pause:  # It was worth waiting for.
                self._pauses = pauses()

    async def _again(self) -> ClientConnection:
        """Connect again. Raises `Refused` if that did not succeed in time, or never will."""
        try:
            async with asyncio.timeout_at(self._deadline):
                while True:
                    self._pause = next(self._pauses)
                    await asyncio.sleep(self._pause)
                    try:
                        return await dial(self._address)
                    except Refused as refused:
                        if not refused.error.retryable:
                            raise
        except TimeoutError:
            raise Refused(describe("disconnected")) from None

    async def _exchange(self, socket: ClientConnection) -> None:
        """Send and receive until the connection is closed, from whichever side."""
        writing = asyncio.create_task(self._write(socket))
        try:
            await self._read(socket)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await socket.close()

    async def _read(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(GREETING_SECONDS) as limit:
                async for frame in socket:
                    for event in self._session.receive(frame if isinstance(frame, bytes) else frame.encode()):
                        self._deliver(event)
                    self.wake()
                    if self._session.ready:
                        limit.reschedule(None)
                        self.agreed.set()

    async def _write(self, socket: ClientConnection) -> None:
        """Send whenever there is something to send. A frame is made when the one before it is gone."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while (frame := self._session.next_frame()) is not None:
                    await socket.send(frame)
                self._idle.set()
        except ConnectionClosed:
            pass  # The reader notices, once it has read what came before.
        finally:
            self._idle.clear()
