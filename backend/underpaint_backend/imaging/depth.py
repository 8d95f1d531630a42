"""Between 8 and 16 bits a channel. Models see and paint 8; what was not painted keeps all that it had."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def to_8_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """The nearest value of 0..255 for each of 0..65535; what has 8 bits stays as it is."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def like(pixels: Pixels, other: Pixels) -> Pixels:
    """`pixels` with as many bits a channel as `other` has; full stays full and nothing stays nothing."""
    if pixels.dtype == other.dtype:
        return pixels
    if other.dtype == np.uint8:
        return to_8_bits(pixels)
    return pixels.astype(np.uint16) * np.uint16(257)
