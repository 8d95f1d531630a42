"""The tiles that come on one connection, on their way into the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future

from underpaint_protocol.exceptions import TileError
from underpaint_protocol.messages import Tile

from .pixels import Pixels
from .tiles import StoreFull

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Tiles of one connection, of up to 512 KiB each, that may be on their way."""
BATCHES = 2
"""Threads that store tiles of one connection at the same time; what comes meanwhile is the next batch of one."""


class Intake:
    """Stores tiles in threads while more of them come, as many at a time as came in the meantime.

    What depends on tiles that came before waits for `settled`.
    """

    def __init__(self, pixels: Pixels, on_refusal: Callable[[TileError | StoreFull], None]) -> None:
        """`on_refusal` hears, on the event loop, of each tile that is damaged or that finds no room."""
        self._pixels = pixels
        self._on_refusal = on_refusal
        self._waiting: list[Tile] = []
        self._in_threads = 0
        self._batches = 0
        self._fewer = asyncio.Event()

    async def put(self, tile: Tile) -> None:
        """Take a tile; returns before it is stored, if not too many are on their way."""
        if tile.base is not None:
            await self.settled()  # Its base may be among them.
        elif self._on_way >= AT_ONCE:
            await self.settled(AT_ONCE // 2)
        self._waiting.append(tile)
        self._begin()

    async def settled(self, but: int = 0) -> None:
        """Wait until all tiles are stored or refused, but for so many."""
        while self._on_way > but:
            self._fewer.clear()
            await self._fewer.wait()

    @property
    def _on_way(self) -> int:
        return len(self._waiting) + self._in_threads

    def _begin(self) -> None:
        """Give what waits to a thread, unless as many are at it as may be."""
        if not self._waiting or self._batches == BATCHES:
            return
        batch, self._waiting = self._waiting, []
        self._in_threads += len(batch)
        self._batches += 1
        loop = asyncio.get_running_loop()
        stored = self._pixels.store_soon(batch)
        stored.add_done_callback(lambda stored: loop.call_soon_threadsafe(self._finish, len(batch), stored))

    def _finish(self, count: int, stored: Future[list[Exception]]) -> None:
        """A batch of so many is through."""
        self._in_threads -= count
        self._batches -= 1
        for error in stored.result():
            if isinstance(error, (TileError, StoreFull)):
                self._on_refusal(error)
            else:
                log.error("a tile could not be stored", exc_info=error)
        self._begin()
        self._fewer.set()
