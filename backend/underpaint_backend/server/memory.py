"""Memory that the C library holds although nobody uses it, given back to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Return free pages to the system; nothing happens where the C library has no `malloc_trim`, which is glibc's.

    Tiles of all sizes are held for a moment each, by several threads, and what they leave behind is free but scattered.
    This returns whole pages of it; it does not end the slow growth that `run.py bench soak` measures (4.8 to 8.4 % of
    37 MiB over 5,000 jobs), of which tracemalloc sees nothing.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or Windows, which has no CDLL(None)
        return None
    return trim
