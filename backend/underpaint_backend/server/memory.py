"""How the daemon uses memory: the heaps of the C library, and Python's search for garbage.

Tiles of a quarter of a MiB are held for a moment each, by several threads. Left alone, glibc keeps them in a heap for
each thread, and what they leave behind is free but scattered. Giving every tile's memory back to the system at once
would end that, but takes half of the daemon's throughput (`run.py bench throughput`).
"""

from __future__ import annotations

import gc

from .. import malloc

HEAPS = 2
NEW_OBJECTS = 10_000
"""New containers after which Python looks for garbage by itself. A tile on its way makes dozens, and none is any."""


def keep_in_shape() -> None:
    """To be called once, when everything is imported and before there are many threads.

    What is there by now stays for good, so Python need not look for garbage in it again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
    malloc.share_heaps(HEAPS)


def tidy() -> None:
    """To be called every few seconds, in a thread: give back what nobody needs. Takes 2 ms, half of it for all threads.

    Connections that are gone refer to themselves in circles. Python by itself looks for them after so many new objects
    only that a daemon which is not busy would keep hundreds.
    """
    gc.collect()
    malloc.trim()
