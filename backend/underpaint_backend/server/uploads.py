"""Pixels that came of which no picture was made, counted for each token: they push those of others out of the store."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from underpaint_protocol.messages import MAX_TILES, Limits

WINDOW = 60
"""Seconds after which the count begins anew."""
TIMES = 2
"""How often all that its jobs may need may come in that time: some may have to be sent again."""
SMALL = 1 << 16
"""Bytes of a tile on average, beside which a job may have `MAX_TILES` that are smaller."""


@dataclass
class _Count:
    since: float
    tiles: int = 0
    bytes: int = 0


class Uploads:
    """What each token sent since one of its jobs was accepted, over all its connections, within `WINDOW`."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def seconds_until_more(self, owner: str, size: int, limits: Limits) -> int:
        """Count a tile of `size` bytes. How many seconds its sender has to wait: 0 if it may be stored now."""
        now = time.monotonic()
        count = self._counts.get(owner)
        if count is None or now - count.since >= WINDOW:
            count = self._counts[owner] = _Count(now)
        count.tiles += 1
        count.bytes += size
        most_tiles = MAX_TILES + limits.max_tile_bytes // SMALL
        fits = count.tiles <= TIMES * most_tiles and count.bytes <= TIMES * limits.max_tile_bytes
        return 0 if fits else math.ceil(WINDOW - (now - count.since))

    def used_by_a_job(self, owner: str) -> None:
        """A job was accepted: what came before it was of use."""
        self._counts.pop(owner, None)
