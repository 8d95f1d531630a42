"""Pictures and masks at another size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize_picture(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture [H, W, 3] at another size, resampled with Lanczos' filter; itself if it has that size."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def resize_coverage(coverage: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Coverage [H, W] in 0..1 at another size: the mean over the area of each new pixel.

    What covers any pixel also covers the new pixel at its place a little, however small it is, and nothing else is
    covered.
    """
    resized = Image.fromarray(coverage).resize(size, Image.Resampling.BOX)
    return np.asarray(resized, np.float32).clip(0, 1)


def resize_smoothly(channel: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Values [H, W] at another size, interpolated linearly."""
    return np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR), np.float32)
