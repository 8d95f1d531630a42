"""Memory that is free goes back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import psutil  # type: ignore[import-untyped]
import pytest
from underpaint_backend import malloc


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def has(name: str) -> bool:
    try:
        return hasattr(ctypes.CDLL(None), name)
    except (OSError, TypeError):
        return False


@pytest.mark.skipif(not has("malloc_trim"), reason="the C library has no malloc_trim")
def test_what_lies_free_between_what_is_used_is_given_back() -> None:
    """Of 100 MB in pieces, one in twenty stays; most of the rest is the system's again."""
    pieces = [bytearray(b"x" * 100_000) for _ in range(1000)]
    kept = pieces[::20]
    full = resident()
    del pieces
    malloc.trim()
    assert resident() < full - 60_000_000
    assert len(kept) == 50


HOLES = """
import psutil
from underpaint_backend import malloc

def taken():
    return psutil.Process().memory_info().data

one = bytearray(20_000_000)
del one  # from now on, glibc takes pieces of up to this size from its heap
{before}
start = taken()
large, small = [], []
for number in range(20):
    large.append(bytearray(5_000_000))
    small.append(bytearray(50_000))  # small enough to lie in the heap, and in the way
large.clear()
malloc.trim()
print((taken() - start) // 1_000_000)
"""


def megabytes_after(before: str) -> int:
    """What a process of its own still has after it freed 100 MB in large pieces, with small ones between them."""
    run = subprocess.run(
        [sys.executable, "-c", HOLES.format(before=before)], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.skipif(not has("mallopt"), reason="the C library has no mallopt")
def test_large_pieces_leave_no_holes() -> None:
    """What is left alone keeps the holes that large pieces leave; what was told to return them keeps none."""
    assert megabytes_after("") > 80
    assert megabytes_after("malloc.return_above(1 << 20)") < 10
