"""Numbers as words of the command line. Each raises `ArgumentTypeError` that says what would have done."""

from __future__ import annotations

import argparse


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
    """A whole number above 0."""
    if not (word.isascii() and word.isdigit() and int(word)):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0; it was {word}")
    return int(word)


def amount(word: str) -> float:
    """A number above 0, and below 2²⁰."""
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value < 1 << 20:
        raise argparse.ArgumentTypeError(f"must be a number above 0; it was {word}")
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
