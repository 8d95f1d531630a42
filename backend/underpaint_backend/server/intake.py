"""The tiles that come on one connection, on their way into the store."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from underpaint_protocol.exceptions import TileError
from underpaint_protocol.messages import Tile

from .pixels import Pixels
from .tiles import StoreFull

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Tiles of one connection, of up to 512 KiB each, that may be on their way."""
NEVER = -1


class Intake:
    """Stores tiles in threads while more of them come. The event loop hears of refusals, and of nothing else.

    What depends on tiles that came before waits for `settled`.
    """

    def __init__(self, pixels: Pixels, on_refusal: Callable[[TileError | StoreFull], None]) -> None:
        """`on_refusal` hears, on the event loop, of each tile that is damaged or that finds no room."""
        self._pixels = pixels
        self._on_refusal = on_refusal
        self._loop = asyncio.get_running_loop()
        self._taken = 0
        self._ended: deque[Exception | None] = deque()
        """What became of tiles; threads append to it."""
        self._wanted = NEVER
        """How few may be on their way when the loop is to be woken."""
        self._fewer = asyncio.Event()

    async def put(self, tile: Tile) -> None:
        """Take a tile; returns before it is stored, if not too many are on their way."""
        if tile.base is not None:
            await self.settled()  # Its base may be among them.
        elif self._on_way >= AT_ONCE:
            await self.settled(AT_ONCE // 2)
        self._taken += 1
        self._pixels.store_soon(tile, self._end)

    async def settled(self, but: int = 0) -> None:
        """Wait until all tiles are stored or refused, but for so many."""
        self._fewer.clear()
        self._wanted = but  # Before looking, so that whatever ends after the look sees it.
        while self._on_way > but:
            await self._fewer.wait()
            self._fewer.clear()
        self._wanted = NEVER
        self._collect()

    @property
    def _on_way(self) -> int:
        return self._taken - len(self._ended)

    def _end(self, error: Exception | None) -> None:
        """In the thread that had the tile."""
        self._ended.append(error)
        if error is not None or self._on_way <= self._wanted:
            self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        while self._ended:
            error = self._ended.popleft()
            self._taken -= 1
            if isinstance(error, (TileError, StoreFull)):
                self._on_refusal(error)
            elif error is not None:
                log.error("a tile could not be stored", exc_info=error)
        self._fewer.set()
