"""How long to wait before the next attempt to connect: longer after each, and never exactly as long as others do."""

from __future__ import annotations

import random
from typing import Callable

FIRST = 0.25
"""Seconds after the first loss, at most."""
LONGEST = 15.0
"""Seconds between attempts, at most."""


class Backoff:
    """Waiting times that double from `FIRST` to `LONGEST`.

    Each is drawn from its upper half: when a daemon comes back, its clients do not all knock in the same instant.
    """

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        """`draw(low, high)` gives a random number between the two."""
        self._draw = draw
        self._longest = FIRST

    def next(self) -> float:
        """Seconds to wait now."""
        seconds = self._draw(self._longest / 2, self._longest)
        self._longest = min(2 * self._longest, LONGEST)
        return seconds

    def reset(self) -> None:
        """All is well again; the next loss is a first one."""
        self._longest = FIRST
