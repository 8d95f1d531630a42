"""What waits to be sent to one client, in three lanes.

Control (answers, progress) goes first. A preview is a latest-wins slot per picture. Bulk, the chunks of finished
pictures with the `result` and the end of the job behind them, goes last and yields between chunks. So the order
within a job is kept, and no large transfer holds up a small message.
"""

from __future__ import annotations

import asyncio
from collections import deque

from underpaint_protocol.fields import Record
from underpaint_protocol.messages import TERMINAL, BlobChunk, Preview, Result

MAX_WAITING = 1 << 28
"""Bytes of finished pictures that may wait for one client; four pictures of 16 MP."""


class Overflow(Exception):
    """The client reads too slowly: more waits for it than it may cost."""


class Outbox:
    """Messages of one client that were not sent yet."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self.max_waiting = max_waiting
        self._control: deque[Record] = deque()
        self._previews: dict[tuple[str, int], Preview] = {}
        self._bulk: deque[Record] = deque()
        self._waiting = 0
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()

    def put(self, message: Record) -> None:
        """Queue a message without waiting.

        Raises `Overflow` if too much waits already.
        """
        if isinstance(message, Preview):
            self._previews[message.job, message.index] = message
        elif isinstance(message, (BlobChunk, Result, *TERMINAL)):
            self._put_bulk(message)
        else:
            self._control.append(message)
            if len(self._control) > 10_000:
                raise Overflow("ten thousand messages wait")
        self._filled.set()
        self._idle.clear()

    def _put_bulk(self, message: Record) -> None:
        if isinstance(message, BlobChunk):
            self._waiting += len(message.data)
            if self._waiting > self.max_waiting:
                raise Overflow(f"{self._waiting} bytes wait")
        elif isinstance(message, TERMINAL):
            self._previews = {key: slot for key, slot in self._previews.items() if key[0] != message.job}
        self._bulk.append(message)

    async def get(self) -> Record:
        """The next message to send; waits until there is one."""
        while True:
            if self._control:
                return self._control.popleft()
            if self._previews:
                return self._previews.pop(next(iter(self._previews)))
            if self._bulk:
                message = self._bulk.popleft()
                if isinstance(message, BlobChunk):
                    self._waiting -= len(message.data)
                return message
            self._filled.clear()
            self._idle.set()
            await self._filled.wait()

    async def drained(self) -> None:
        """Wait until everything was taken and whoever took it asked for more."""
        await self._idle.wait()
