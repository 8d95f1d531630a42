"""A large painting, and single brush strokes on it, drawn with soft round brushes as in Krita."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Canvas = NDArray[np.uint8]
"""Red, green, blue and straight alpha, [H, W, 4]."""


def painting(side: int, random: np.random.Generator) -> Canvas:
    """A ground of two colours, large soft strokes on it, then smaller ones, and fine lines last."""
    top, bottom = random.integers(60, 220, (2, 1, 1, 3))
    down = np.linspace(0, 1, side)[:, None, None]
    canvas = np.empty((side, side, 4), np.uint8)
    canvas[..., :3] = top + (bottom - top) * down
    canvas[..., 3] = 255
    for width, count in ((side / 10, 60), (side / 40, 250), (side / 120, 500), (side / 800, 300)):
        for _ in range(count):
            some_stroke(canvas, random, length=width * random.uniform(3, 8), width=width * random.uniform(0.5, 1.2))
    return canvas


def some_stroke(canvas: Canvas, random: np.random.Generator, length: float, width: float) -> None:
    """One stroke anywhere, of any direction and colour, with a slight bend. `length` and `width` are in px."""
    side = len(canvas)
    middle, angle = random.uniform(0, side, 2), random.uniform(0, 2 * math.pi)
    colour, opacity, bend = random.integers(0, 256, 3), random.uniform(0.4, 1.0), random.uniform(-0.4, 0.4)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    places = np.linspace(-0.5, 0.5, max(4, int(length / width) * 4))[:, None]
    points = middle + length * (places * along + bend * (places**2 - 0.25) * across)
    lay(canvas, points, width, colour, opacity)


def lay(canvas: Canvas, points: NDArray[np.float64], width: float, colour: NDArray[np.int64], opacity: float) -> None:
    """Draw a soft line of `width` px through `points` (x and y in px)."""
    left, top = np.maximum(np.floor(points.min(0) - width).astype(int), 0)
    right, bottom = np.minimum(np.ceil(points.max(0) + width).astype(int) + 1, len(canvas))
    if left >= right or top >= bottom:
        return
    cover = Image.new("L", (int(right - left), int(bottom - top)))
    line = [(float(x - left), float(y - top)) for x, y in points]
    ImageDraw.Draw(cover).line(line, fill=255, width=max(1, round(0.7 * width)), joint="curve")
    soft = cover.filter(ImageFilter.GaussianBlur(0.12 * width)).point([round(opacity * level) for level in range(256)])
    region = Image.fromarray(canvas[top:bottom, left:right, :3])
    region.paste((int(colour[0]), int(colour[1]), int(colour[2])), (0, 0), soft)
    canvas[top:bottom, left:right, :3] = np.asarray(region)


def selection(side: int) -> NDArray[np.uint8]:
    """A feathered ellipse in the middle, [H, W]: 255 is fully selected."""
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse((side * 0.3, side * 0.35, side * 0.7, side * 0.65), fill=255)
    return np.asarray(mask.filter(ImageFilter.BoxBlur(side / 100)))
