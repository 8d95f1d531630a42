"""Selections as artists make them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .backgrounds import blurred
from .colours import Floats
from .shapes import SHAPES, Box, blob, cover

SMALLEST, LARGEST = 0.28, 0.95
"""Side of a selection's box as a share of the picture's side."""


def draw_box(rng: np.random.Generator, size: int) -> Box:
    """The box of a selection, wholly within the picture; sides within `SMALLEST`..`LARGEST`."""
    side = rng.uniform(SMALLEST, LARGEST)
    aspect = np.exp(rng.normal(0, 0.18))
    width = float(np.clip(side * np.sqrt(aspect), SMALLEST, LARGEST)) * size / 2
    height = float(np.clip(side / np.sqrt(aspect), SMALLEST, LARGEST)) * size / 2
    # Most selections sit near the middle of what the model sees: the daemon crops around them.
    x = size / 2 + np.clip(rng.normal(0, 0.35), -1, 1) * (size / 2 - width)
    y = size / 2 + np.clip(rng.normal(0, 0.35), -1, 1) * (size / 2 - height)
    return Box(float(x), float(y), width, height)


def _ellipse(box: Box, size: int) -> Floats:
    return cover(SHAPES[0], box, size)


def _rectangle(box: Box, size: int, radius: float) -> Floats:
    plane = Image.new("L", (size, size))
    corners = (
        box.x - box.half_width,
        box.y - box.half_height,
        box.x + box.half_width,
        box.y + box.half_height,
    )
    ImageDraw.Draw(plane).rounded_rectangle(corners, radius, 255)
    return np.asarray(plane, np.float32) / np.float32(255)


def around(coverage: Floats, margin: int) -> Floats:
    """The shape grown by about `margin` px on all sides, as a loose outline around it."""
    grown = blurred(coverage, margin) > 0.02
    return np.asarray(blurred(grown.astype(np.float32), 2) > 0.5, np.float32)


def draw_mask(rng: np.random.Generator, box: Box, size: int) -> Floats:
    """A selection `[size, size]`, 0 or 1, that about fills `box`."""
    kind = rng.random()
    if kind < 0.45:
        plane = _ellipse(box, size)
    elif kind < 0.6:
        plane = _rectangle(box, size, 0)
    elif kind < 0.75:
        plane = _rectangle(box, size, min(box.half_width, box.half_height) * rng.uniform(0.2, 0.9))
    else:
        plane = blob(rng, box, size, roughness=0.3)
    return np.asarray(plane > 0.5, np.float32)
