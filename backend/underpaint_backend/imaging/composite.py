"""From a model's picture to one that can be laid over the canvas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .depth import Pixels, like
from .resize import resize_picture


def cut_out(painted: NDArray[np.uint8], canvas: Pixels, mask: Pixels) -> Pixels:
    """What was painted, as [H, W, 4] at the canvas' size, with the mask [H, W] as its alpha.

    Where nothing is selected it holds the canvas' own colours, so that they are right even where someone resamples
    it. `painted` [h, w, 3] may have any size; `canvas` is [H, W, 3] or [H, W, 4], and the result has its depth.
    """
    height, width = mask.shape
    fitted = like(resize_picture(painted, (width, height)), canvas)
    colours = np.where(mask[..., None] > 0, fitted, canvas[..., :3])
    return np.dstack([colours, like(mask, canvas)])


def opaque(painted: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A whole picture [h, w, 3] at `size`, as [H, W, 4] without transparency."""
    colours = resize_picture(painted, size)
    return np.dstack([colours, np.full(colours.shape[:2], 255, np.uint8)])
