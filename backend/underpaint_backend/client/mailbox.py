"""The events of one job on their way from the connection to the program that follows it."""

from __future__ import annotations

import asyncio
from collections import deque

from underpaint_protocol.client import Event
from underpaint_protocol.errors import ErrorInfo
from underpaint_protocol.messages import Position, Preview

from .dialing import Refused


class Mailbox:
    """Events in order. A program that is slow finds the newest preview and place only, and everything else."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._closed: ErrorInfo | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the program has taken all there was."""
        return not self._events

    def put(self, event: Event) -> None:
        """Add an event."""
        if isinstance(event, (Preview, Position)):
            self._events = deque(other for other in self._events if type(other) is not type(event))
        self._events.append(event)
        self._news.set()

    def close(self, error: ErrorInfo) -> None:
        """Nothing will follow, because of `error`."""
        self._closed = error
        self._news.set()

    async def take(self) -> Event:
        """The next event, once there is one. Raises `Refused` when nothing will follow."""
        while not self._events:
            if self._closed is not None:
                raise Refused(self._closed)
            self._news.clear()
            await self._news.wait()
        return self._events.popleft()
