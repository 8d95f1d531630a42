"""How the C library deals with memory, where it is glibc, and Python with garbage.

Tiles of a quarter of a MiB are held for a moment each, by several threads. Left alone, glibc keeps them in a heap for
each thread, and what they leave behind is free but scattered. Giving every tile's memory back to the system at once
would end that, but takes half of the daemon's throughput (`run.py bench throughput`).
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import cache

M_ARENA_MAX = -8
"""From glibc's malloc.h."""
HEAPS = 2
NEW_OBJECTS = 10_000
"""New containers after which Python looks for garbage. A tile on its way makes dozens, and none of them is any."""


def keep_in_shape() -> None:
    """To be called once, when everything is imported and before there are many threads.

    What is there by now stays for good, so Python need not look for garbage in it again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(M_ARENA_MAX, HEAPS)


def give_back() -> None:
    """Return free pages to the system. Takes some milliseconds."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


@cache
def _function(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library, or Windows, which has no CDLL(None)
        return None
    return function
