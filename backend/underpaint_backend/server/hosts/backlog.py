"""What a worker said of its job, and nobody took yet."""

from __future__ import annotations

import asyncio

from underpaint_protocol.fields import Record
from underpaint_protocol.messages import TERMINAL, Failed

MAX_WAITING = 4 << 20
"""Bytes of messages that wait before the worker has to: some sixteen tiles, and room for thousands of small ones."""
OVERHEAD = 500
"""Bytes that a message takes beside those that came over the pipe, about."""


class Backlog:
    """Messages in order. Whoever puts one waits while there is no room; the end that the host itself says has room."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[tuple[Record, int]] = asyncio.Queue()
        self._waiting = 0
        self._room = asyncio.Event()
        self._left = False

    def __len__(self) -> int:
        """How many messages wait."""
        return self._messages.qsize()

    async def put(self, message: Record, size: int) -> None:
        """Add what came as `size` bytes, once there is room or nobody takes messages any more."""
        while self._waiting >= MAX_WAITING and not self._left:
            self._room.clear()
            await self._room.wait()
        self._add(message, size + OVERHEAD)

    def end(self, message: Failed) -> None:
        """Add what the worker cannot say any more: that it is gone."""
        self._add(message, 0)

    async def take(self) -> Record:
        """The next message."""
        message, size = await self._messages.get()
        self._waiting -= size
        self._room.set()
        return message

    async def drop(self) -> None:
        """Take and drop what comes, up to the end."""
        while not isinstance(await self.take(), TERMINAL):
            pass

    def leave(self) -> None:
        """Nobody takes messages any more, and nobody is to wait for that."""
        self._left = True
        self._room.set()

    def _add(self, message: Record, size: int) -> None:
        self._waiting += size
        self._messages.put_nowait((message, size))
