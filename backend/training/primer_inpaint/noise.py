"""Random fields with the statistics of photographs, cut out of a bank that is computed once."""

from __future__ import annotations

from functools import cache

import numpy as np

from .colours import Floats

BANK_SIZE = 256
BANK_FIELDS_PER_SLOPE = 6
SLOPES = (0.0, 0.7, 1.0, 1.4, 1.8)
"""Amplitude falls with frequency as 1/f^slope: 0 is grain, 1 is a photograph, 1.8 is soft clouds."""


@cache
def _bank() -> dict[float, Floats]:
    rng = np.random.default_rng(20261)
    fx = np.fft.fftfreq(BANK_SIZE)[:, None]
    fy = np.fft.rfftfreq(BANK_SIZE)[None, :]
    frequency = np.maximum(np.hypot(fx, fy), 1 / BANK_SIZE)
    bank = {}
    for slope in SLOPES:
        white = rng.normal(size=(BANK_FIELDS_PER_SLOPE, BANK_SIZE, BANK_SIZE))
        fields = np.fft.irfft2(np.fft.rfft2(white) / frequency**slope, s=(BANK_SIZE, BANK_SIZE))
        fields -= fields.mean(axis=(1, 2), keepdims=True)
        fields /= fields.std(axis=(1, 2), keepdims=True)
        bank[slope] = fields.astype(np.float32)
    return bank


def field(rng: np.random.Generator, size: int, slope: float, stretch: int = 1) -> Floats:
    """A field `[size, size]` of mean about 0 and deviation about 1.

    `slope` is one of `SLOPES`; `stretch` > 1 draws it out sideways that many times.
    """
    fields = _bank()[slope]
    plane = fields[int(rng.integers(len(fields)))]
    plane = np.roll(plane, tuple(rng.integers(0, BANK_SIZE, 2)), (0, 1))
    if rng.random() < 0.5:
        plane = plane[::-1]
    plane = plane[:size, : -(-size // stretch)]
    return np.repeat(plane, stretch, axis=1)[:size, :size] if stretch > 1 else plane


def lookup(rng: np.random.Generator, x: Floats, y: Floats, slope: float) -> Floats:
    """A field read at the coordinates `x` and `y` in px, which may bend and shrink it."""
    plane = field(rng, BANK_SIZE, slope)
    column = np.mod(x, BANK_SIZE).astype(np.int32)
    row = np.mod(y, BANK_SIZE).astype(np.int32)
    return np.asarray(plane[row, column], np.float32)
