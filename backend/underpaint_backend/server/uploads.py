"""Pixels that came of which no picture was made, counted for each token: they push those of others out of the store."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from underpaint_protocol.messages import MAX_TILES, Limits, Tile

WINDOW = 60
"""Seconds after which the count begins anew."""
TIMES = 2
"""How often all that its jobs may need may come in that time: some may have to be sent again."""
SMALL = 1 << 16
"""Bytes of a tile on average, beside which a job may have `MAX_TILES` that are smaller."""


@dataclass
class _Count:
    since: float
    sizes: dict[bytes, int] = field(default_factory=dict)
    """Of the tiles that are counted, by name; there are never more than may be counted."""
    tiles: int = 0
    size: int = 0
    """Bytes of all of them. What was sent twice counts twice."""


class Uploads:
    """What each token sent within `WINDOW` that no accepted job of its own has named, over all its connections."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def seconds_until_more(self, owner: str, tile: Tile, limits: Limits) -> int:
        """How many seconds the sender of a tile has to wait. 0 if it may be stored now; it is counted then."""
        now = time.monotonic()
        count = self._counts.get(owner)
        if count is None or now - count.since >= WINDOW:
            count = self._counts[owner] = _Count(now)
        most_tiles = TIMES * (MAX_TILES + limits.max_tile_bytes // SMALL)
        if count.tiles >= most_tiles or count.size + tile.size > TIMES * limits.max_tile_bytes:
            return math.ceil(WINDOW - (now - count.since))
        count.tiles += 1
        count.size += tile.size
        count.sizes[tile.name] = tile.size
        return 0

    def used_by_a_job(self, owner: str, names: Iterable[bytes]) -> None:
        """A job that needs these tiles was accepted: those of them that its owner sent were of use, each once."""
        count = self._counts.get(owner)
        if count is None:
            return
        for name in count.sizes.keys() & set(names):
            count.tiles -= 1
            count.size -= count.sizes.pop(name)
