"""From a model's picture to one that can be laid over the canvas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .resize import resize_picture


def cut_out(painted: NDArray[np.uint8], canvas: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What was painted, as [H, W, 4] at the canvas' size, with the mask [H, W] as its alpha.

    Where nothing is selected it holds the canvas' own colours, so that they are right even where someone resamples
    it. `painted` [h, w, 3] may have any size; `canvas` is [H, W, 3] or [H, W, 4].
    """
    height, width = mask.shape
    colours = np.where(mask[..., None] > 0, resize_picture(painted, (width, height)), canvas[..., :3])
    return np.dstack([colours, mask])


def opaque(painted: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A whole picture [h, w, 3] at `size`, as [H, W, 4] without transparency."""
    colours = resize_picture(painted, size)
    return np.dstack([colours, np.full(colours.shape[:2], 255, np.uint8)])
