"""A websocket to a daemon with nothing between it and its TCP connection, so that any bytes can be sent."""

from __future__ import annotations

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from collections import deque
from urllib.parse import urlsplit

from underpaint_protocol.fields import Record
from underpaint_protocol.messages import SUBPROTOCOL, vocabulary
from underpaint_protocol.vocabulary import FROM_SERVER

from .frames import BINARY, CLOSE, MASK, PING, PONG, Frames, frame

CHUNK = 1 << 18


class Closed(Exception):
    """The daemon closed the connection with `code`; None if it did so without a word."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Line:
    """An open connection, after the websocket's handshake and before `hello`."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = Frames()
        self._came: deque[tuple[int, bytes]] = deque()

    def say(self, *messages: Record) -> None:
        """Send messages."""
        self.writer.write(b"".join([frame(vocabulary.encode(message)) for message in messages]))

    async def hear(self) -> Record:
        """The next message. Raises `Closed`."""
        while True:
            while self._came:
                opcode, payload = self._came.popleft()
                if opcode == BINARY:
                    return vocabulary.decode(payload, FROM_SERVER)
                self._control(opcode, payload)
            await self._read()

    async def close(self) -> None:
        """Let go of the connection without a word."""
        self.writer.transport.abort()

    async def _read(self) -> None:
        try:
            data = await self.reader.read(CHUNK)
        except ConnectionError:
            data = b""
        if not data:
            raise Closed(None)
        self._came.extend(self._frames.feed(data))

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.writer.write(frame(payload, PONG))
        elif opcode == CLOSE:
            code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else None
            raise Closed(code, payload[2:].decode())


def upgrade(url: str, token: str) -> bytes:
    """The HTTP request that opens a websocket to the daemon at `url`."""
    lines = (
        "GET / HTTP/1.1",
        f"Host: {urlsplit(url).netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
        f"Authorization: Bearer {token}",
    )
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def dial(url: str, *, limit: int = CHUNK) -> tuple[StreamReader, StreamWriter]:
    """A bare TCP connection to where `url` points; `limit` bytes are read ahead at most."""
    place = urlsplit(url)
    return await asyncio.open_connection(place.hostname, place.port, limit=limit)


async def open_line(url: str, token: str) -> Line:
    """Connect and shake hands. Raises `Closed` with the HTTP status if the daemon refuses."""
    reader, writer = await dial(url)
    writer.write(upgrade(url, token))
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status != 101:
        writer.transport.abort()
        raise Closed(status, head.decode())
    return Line(reader, writer)


__all__ = ["CHUNK", "MASK", "Closed", "Line", "dial", "open_line", "upgrade"]
