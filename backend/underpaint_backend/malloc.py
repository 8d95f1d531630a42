"""How the C library deals with memory, where it is glibc. With any other, nothing here does anything.

glibc keeps much of what is freed, for whoever asks next, and what was in use between it keeps it from the system. As
soon as one large piece was freed, it also puts pieces of that size, up to 32 MiB, where they leave such holes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""From glibc's malloc.h."""


def trim() -> None:
    """Return free pages to the system. Takes some milliseconds."""
    function = _function("malloc_trim")
    if function is not None:
        function(0)


def share_heaps(count: int) -> None:
    """Have threads share so many heaps, instead of each having its own."""
    _set(M_ARENA_MAX, count)


def return_above(size: int) -> None:
    """From now on, return each piece of more than `size` bytes to the system the moment it is freed; at most 32 MiB."""
    _set(M_MMAP_THRESHOLD, size)
    _set(M_TRIM_THRESHOLD, 2 * size)  # as glibc has it when it chooses both itself


def _set(option: int, value: int) -> None:
    function = _function("mallopt")
    if function is not None:
        function(option, value)


@cache
def _function(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library, or Windows, which has no CDLL(None)
        return None
    return function
