"""Memory that is free goes back to the system."""

from __future__ import annotations

import ctypes

import psutil  # type: ignore[import-untyped]
import pytest
from underpaint_backend.server.memory import give_back


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def has_trim() -> bool:
    try:
        return hasattr(ctypes.CDLL(None), "malloc_trim")
    except (OSError, TypeError):
        return False


@pytest.mark.skipif(not has_trim(), reason="the C library has no malloc_trim")
def test_what_lies_free_between_what_is_used_is_given_back() -> None:
    """Of 100 MB in pieces, one in twenty stays; most of the rest is the system's again."""
    pieces = [bytearray(b"x" * 100_000) for _ in range(1000)]
    kept = pieces[::20]
    full = resident()
    del pieces
    give_back()
    assert resident() < full - 60_000_000
    assert len(kept) == 50
