"""The shapes the model knows, as coverage planes.

Star, heart, cross and triangle are drawn fat: a shape has to cover clearly more than half of an
elliptical selection around it, or nobody could say that the selection has the shape's colour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .colours import Floats

Outline = Callable[[], list[tuple[float, float]]]
OVERSAMPLING = 3


@dataclass(frozen=True)
class Box:
    """Centre and half sizes of a box, in px of the picture."""

    x: float
    y: float
    half_width: float
    half_height: float


@dataclass(frozen=True)
class Shape:
    """A shape: its words and its outline, within -1..1 of its box, y pointing down.

    `scale` is the range of its size compared with the selection's box.
    """

    name: str
    outline: Outline
    words: tuple[str, ...]
    scale: tuple[float, float]


def _regular(corners: int, turn: float = 0.0) -> Outline:
    angles = [2 * np.pi * index / corners + turn for index in range(corners)]
    return lambda: [(float(np.sin(a)), float(-np.cos(a))) for a in angles]


def _star() -> list[tuple[float, float]]:
    radii = [1.0 if index % 2 == 0 else 0.58 for index in range(10)]
    angles = [np.pi * index / 5 for index in range(10)]
    return [
        (float(r * np.sin(a)) * 1.05, float(-r * np.cos(a)) * 1.05 + 0.05) for r, a in zip(radii, angles, strict=True)
    ]


def _heart() -> list[tuple[float, float]]:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 15
    # The classic curve is thin: pushing it outwards sideways and downwards makes it cover more.
    return [(float(a) * 1.02, float(b) * 0.98 - 0.04) for a, b in zip(x, y, strict=True)]


def _box() -> list[tuple[float, float]]:
    return [(-1, -1), (1, -1), (1, 1), (-1, 1)]


def _triangle() -> list[tuple[float, float]]:
    return [(0, -1.05), (1.08, 0.85), (-1.08, 0.85)]


def _cross() -> list[tuple[float, float]]:
    a = 0.46
    corners = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a)]
    return [*corners, *[(-x, -y) for x, y in corners]]


SHAPES: tuple[Shape, ...] = (
    Shape("circle", _regular(40), ("circle", "disc", "round shape"), (0.82, 1.0)),
    Shape("square", _box, ("square", "box"), (0.76, 0.92)),
    Shape("triangle", _triangle, ("triangle",), (0.98, 1.1)),
    Shape("diamond", _regular(4), ("diamond", "rhombus"), (0.98, 1.1)),
    Shape("hexagon", _regular(6), ("hexagon",), (0.86, 1.02)),
    Shape("heart", _heart, ("heart",), (0.94, 1.08)),
    Shape("star", _star, ("star",), (1.0, 1.12)),
    Shape("cross", _cross, ("cross", "plus sign"), (0.9, 1.05)),
)


def polygon(points: list[tuple[float, float]], size: int) -> Floats:
    """Coverage `[size, size]`, 0..1, of a polygon whose points are in px."""
    large = Image.new("L", (size * OVERSAMPLING, size * OVERSAMPLING))
    ImageDraw.Draw(large).polygon([(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points], 255)
    return np.asarray(large.reduce(OVERSAMPLING), np.float32) / np.float32(255)


def cover(shape: Shape, box: Box, size: int, turn: float = 0.0) -> Floats:
    """Coverage `[size, size]`, 0..1, of a shape that fills `box`, turned by `turn` radians."""
    cos, sin = np.cos(turn), np.sin(turn)
    return polygon(
        [
            (
                box.x + box.half_width * float(x * cos - y * sin),
                box.y + box.half_height * float(x * sin + y * cos),
            )
            for x, y in shape.outline()
        ],
        size,
    )


def blob(rng: np.random.Generator, box: Box, size: int, roughness: float = 0.22) -> Floats:
    """Coverage `[size, size]`, 0..1, of a closed free-hand outline that about fills `box`."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.ones_like(t)
    for wave in range(2, 6):
        radius += roughness / wave * rng.normal() * np.cos(wave * t + rng.uniform(0, 2 * np.pi))
    radius /= radius.max()
    x = box.x + box.half_width * radius * np.cos(t)
    y = box.y + box.half_height * radius * np.sin(t)
    return polygon([(float(a), float(b)) for a, b in zip(x, y, strict=True)], size)
