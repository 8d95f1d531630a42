"""Filling holes with the colours around them, so that what was there cannot shine through."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .resize import resize_smoothly

PAPER = 255
"""What there is where nothing is known: white."""


def prefill(pixels: NDArray[np.uint8], hole: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture [H, W, 3] with its holes filled smoothly from their surroundings.

    `hole` [H, W] is a mask of what is to be filled. A picture that is one hole becomes paper.

    The method is push-pull (Gortler et al. 1996, "The Lumigraph", section 3.5.1): colours are averaged into ever
    smaller pictures, and holes take theirs from the next smaller one.
    """
    if not hole.any():
        return pixels
    known = 1 - hole.astype(np.float32) / np.float32(255)
    filled = _filled(pixels.astype(np.float32), known)
    return np.where(hole[..., None] > 0, filled.round().clip(0, 255), pixels).astype(np.uint8)


def _filled(colours: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours [H, W, 3], where their weights `known` [H, W] are below 1 mixed with those of their surroundings."""
    height, width = known.shape
    if height == width == 1:
        return colours if known[0, 0] > 0 else np.full_like(colours, PAPER)
    smaller = _filled(*_halved(colours, known))
    around = np.stack([resize_smoothly(channel, (width, height)) for channel in np.moveaxis(smaller, -1, 0)], axis=-1)
    return known[..., None] * colours + (1 - known[..., None]) * around


def _halved(
    colours: NDArray[np.float32], known: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both at half the size: the mean of the known colours, and how much is known, at most 1."""
    height, width = known.shape
    odd = ((0, height % 2), (0, width % 2))
    known = np.pad(known, odd)
    weighted = np.pad(colours, (*odd, (0, 0))) * known[..., None]
    weight = _sum_of_four(known)
    mean = _sum_of_four(weighted) / np.maximum(weight, 1e-6)[..., None]
    return mean.astype(np.float32), np.minimum(weight, 1).astype(np.float32)


def _sum_of_four(values: NDArray[np.float32]) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = values[::2] + values[1::2]
    summed: NDArray[np.float32] = rows[:, ::2] + rows[:, 1::2]
    return summed
