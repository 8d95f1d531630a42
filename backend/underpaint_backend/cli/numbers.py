"""Numbers as words of the command line. Each raises `ArgumentTypeError` that says what would have done."""

from __future__ import annotations

import argparse

MOST = 1_000_000
"""Of hours, seconds or MiB: nobody means more, and far more cannot be counted with."""
MOST_THREADS = 1024
"""Each takes memory of its own: with far more, no worker comes up."""
BELOW = 1 << 20
"""Of GiB."""


def whole(word: str) -> int:
    """A whole number of any size."""
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number; it was {word}") from None


def number(word: str) -> float:
    """Any number, as 0.5."""
    try:
        return float(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number; it was {word}") from None


def above_zero(word: str) -> int:
    """A whole number from 1 to `MOST`."""
    return _from_one_to(MOST, word)


def threads(word: str) -> int:
    """A whole number from 1 to `MOST_THREADS`."""
    return _from_one_to(MOST_THREADS, word)


def amount(word: str) -> float:
    """A number above 0 and below `BELOW`."""
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value < BELOW:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and below {BELOW}; it was {word}")
    return value


def seconds(word: str) -> float:
    """From none to an hour."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"must be from 0 to 3600; it was {word}")
    return value


def _from_one_to(most: int, word: str) -> int:
    value = int(word) if word.isascii() and word.isdigit() and len(word) <= len(str(most)) else 0
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}; it was {word}")
    return value
