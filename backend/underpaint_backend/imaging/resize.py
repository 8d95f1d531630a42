"""Pictures and masks at another size."""

from __future__ import annotations

from typing import Any

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
    low = _mean_over_rows(coverage, size[1])
    return np.ascontiguousarray(_mean_over_rows(low.T, size[0]).T, np.float32).clip(0, 1)


def _mean_over_rows(values: NDArray[Any], count: int) -> NDArray[Any]:
    """`count` rows instead of those of `values` [N, M], each the mean of what it takes the place of.

    Pillow's box filter takes pixels whole or not at all, and some of those at the border of two fall to neither.
    """
    rows = len(values)
    if rows == count:
        return values
    whole, rest = np.divmod(np.arange(count + 1) * rows, count)  # in whole numbers, so that no border is off by a bit
    edges = (rest / count)[:, None] * values[np.minimum(whole, rows - 1)]
    sums = np.add.reduceat(values, whole[:-1], axis=0, dtype=np.float64)
    sums[whole[:-1] == whole[1:]] = 0  # a new row within one old row; `reduceat` gives the old one
    means: NDArray[Any] = (sums + np.diff(edges, axis=0)) * (count / rows)
    return means


def resize_smoothly(channel: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Values [H, W] at another size, interpolated linearly."""
    return np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR), np.float32)
