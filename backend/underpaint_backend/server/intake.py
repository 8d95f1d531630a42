"""The tiles that come on one connection, on their way into the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from underpaint_protocol.exceptions import TileError
from underpaint_protocol.messages import Tile

from .pixels import Pixels
from .tiles import StoreFull

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Tiles of one connection, of up to 512 KiB each, that may be on their way."""


class Intake:
    """Stores tiles in threads while more of them come, and is woken for some of them and not for each.

    What depends on tiles that came before waits for `settled`.
    """

    def __init__(self, pixels: Pixels, on_refusal: Callable[[TileError | StoreFull], None]) -> None:
        """`on_refusal` hears, on the event loop, of each tile that is damaged or that finds no room."""
        self._pixels = pixels
        self._on_refusal = on_refusal
        self._on_way: list[Future[None]] = []

    async def put(self, tile: Tile) -> None:
        """Take a tile; returns before it is stored, if not too many are on their way."""
        if tile.base is not None:
            await self.settled()  # Its base may be among them.
        elif len(self._on_way) >= AT_ONCE:
            await self.settled(AT_ONCE // 2)
        stored = self._pixels.store_soon(tile)
        self._on_way.append(stored)
        stored.add_done_callback(partial(self._wake_if_refused, asyncio.get_running_loop()))

    async def settled(self, but: int = 0) -> None:
        """Wait until all tiles are stored or refused, but for so many that came last."""
        while late := [stored for stored in self._on_way[: len(self._on_way) - but] if not stored.done()]:
            done, _ = await asyncio.wait([asyncio.wrap_future(late[-1])])
            for one in done:
                one.exception()  # It is looked at below; asyncio wants to know that somebody does.
        self._collect()

    def _wake_if_refused(self, loop: asyncio.AbstractEventLoop, stored: Future[None]) -> None:
        """In the thread that had the tile: of one that is stored, the loop need not hear at once."""
        if stored.exception() is not None:
            loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        done = [stored for stored in self._on_way if stored.done()]
        self._on_way = [stored for stored in self._on_way if not stored.done()]
        for stored in done:
            error = stored.exception()
            if isinstance(error, (TileError, StoreFull)):
                self._on_refusal(error)
            elif error is not None:
                log.error("a tile could not be stored", exc_info=error)
