"""From a piece of canvas and a selection to what a model works on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .prefill import PAPER, prefill
from .resize import resize_coverage, resize_picture


class Prepared(NamedTuple):
    """A piece of canvas at working size: opaque `pixels` [H, W, 3] and the selection's `coverage` [H, W] in 0..1."""

    pixels: NDArray[np.uint8]
    coverage: NDArray[np.float32]


def prepare(canvas: NDArray[np.uint8], mask: NDArray[np.uint8], size: tuple[int, int], *, forget: bool) -> Prepared:
    """The piece of canvas, [H, W, 3] or [H, W, 4], and the mask [H, W] at working size.

    Where the canvas is transparent there is white paper, but inside the selection the colours around it, because
    paper there would be taken for a part of the painting. With `forget`, the whole selection is filled so, for models
    that would see through their mask.
    """
    hole = mask if forget else np.minimum(mask, _transparency(canvas))
    pixels = prefill(flatten(canvas), hole)
    return Prepared(resize_picture(pixels, size), resize_coverage(mask.astype(np.float32) / np.float32(255), size))


def flatten(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The canvas, [H, W, 3] or [H, W, 4], as an opaque picture [H, W, 3] on white paper."""
    transparency = _transparency(canvas)
    if not transparency.any():
        return np.ascontiguousarray(canvas[..., :3])
    share = transparency[..., None] / np.float32(255)
    flat = canvas[..., :3] * (1 - share) + PAPER * share
    return flat.round().astype(np.uint8)


def _transparency(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How far each pixel [H, W] is transparent, 0..255."""
    if canvas.shape[-1] == 3:
        return np.zeros(canvas.shape[:2], np.uint8)
    return np.invert(canvas[..., 3])
