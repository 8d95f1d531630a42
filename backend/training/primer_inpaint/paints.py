"""What the inside of an object looks like: plain, patterned, rough or lit, in one colour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import noise
from .colours import Floats, lab
from .shapes import Box

Paint = Callable[[np.random.Generator, Floats, int, Box], Floats]
"""`(rng, colour [3], size, box) -> picture [size, size, 3]`, values 0..1."""


def coordinates(size: int) -> tuple[Floats, Floats]:
    """The planes x and y, `[size, size]`, in px."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    return x, y


def lit(colour: Floats, light: Floats) -> Floats:
    """The colour `[3]` or picture under the light `[H, W]`: 0 as it is, 1 is white, -1 is black.

    Half way to white or black at ±0.5, so that even black and white show some modelling.
    """
    light = np.clip(light, -1, 1)[..., None]
    shown = np.where(light > 0, colour + (1 - colour) * light, colour * (1 + light))
    return np.asarray(shown, np.float32)


def _waves(rng: np.random.Generator, size: int, period: float) -> Floats:
    x, y = coordinates(size)
    angle = rng.choice([0, np.pi / 2, np.pi / 4, rng.uniform(0, np.pi)])
    along = x * np.cos(angle) + y * np.sin(angle)
    return np.asarray(np.sin(2 * np.pi * along / period + rng.uniform(0, 6)), np.float32)


def _contrast(colour: Floats, amount: float) -> float:
    """Light of a pattern's second tone: darker on light colours, lighter on dark ones."""
    return -amount if float(lab(colour * 255)[0]) > 55 else amount


def plain(rng: np.random.Generator, colour: Floats, size: int, box: Box) -> Floats:
    """One even colour, with the slightest unevenness."""
    return lit(colour, noise.field(rng, size, 1.4) * rng.uniform(0, 0.02))


def shaded(rng: np.random.Generator, colour: Floats, size: int, box: Box) -> Floats:
    """A light that falls from one side."""
    x, y = coordinates(size)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (x - box.x) / box.half_width * np.cos(angle)
    ramp = ramp + (y - box.y) / box.half_height * np.sin(angle)
    return lit(colour, np.asarray(ramp * rng.uniform(0.1, 0.28), np.float32))


def shiny(rng: np.random.Generator, colour: Floats, size: int, box: Box) -> Floats:
    """A ball's shading: darker towards the rim, with a highlight."""
    x, y = coordinates(size)
    dx, dy = rng.uniform(-0.45, 0.45), rng.uniform(-0.55, -0.2)
    u, v = (x - box.x) / box.half_width, (y - box.y) / box.half_height
    away = np.hypot(u - dx, v - dy)
    light = 0.16 - 0.3 * np.clip(away, 0, 1.6) ** 1.5
    light = light + rng.uniform(0.5, 0.9) * np.exp(-((away / rng.uniform(0.14, 0.26)) ** 2))
    return lit(colour, np.asarray(light, np.float32))


def striped(rng: np.random.Generator, colour: Floats, size: int, box: Box) -> Floats:
    """Stripes of a second tone, narrower than the colour itself."""
    wave = _waves(rng, size, float(rng.uniform(10, 22)))
    second = np.clip((wave - rng.uniform(0.2, 0.5)) * 6, 0, 1)
    return lit(colour, second * _contrast(colour, rng.uniform(0.35, 0.7)))


def dotted(rng: np.random.Generator, colour: Floats, size: int, box: Box) -> Floats:
    """Round dots of a second tone."""
    x, y = coordinates(size)
    period = rng.uniform(13, 22)
    u = (x / period + np.floor(y / period) * 0.5) % 1 - 0.5
    v = (y / period) % 1 - 0.5
    second = np.clip((0.27 - np.hypot(u, v)) * period / 1.5, 0, 1)
    return lit(colour, np.asarray(second * _contrast(colour, rng.uniform(0.5, 0.8)), np.float32))


def checkered(rng: np.random.Generator, colour: Floats, size: int, box: Box) -> Floats:
    """A checkerboard of the colour and a near tone of it."""
    x, y = coordinates(size)
    period = rng.uniform(9, 18)
    odd = (np.floor(x / period) + np.floor(y / period)) % 2
    return lit(colour, np.asarray((odd - 0.4) * _contrast(colour, 0.45), np.float32))


def rough(rng: np.random.Generator, colour: Floats, size: int, box: Box) -> Floats:
    """Stone, plaster or brush strokes."""
    slope = float(rng.choice([0.7, 1.0, 1.4]))
    grain = noise.field(rng, size, slope, int(rng.choice([1, 1, 3, 6])))
    return lit(colour, grain * rng.uniform(0.06, 0.16))


PAINTS: dict[Paint, tuple[tuple[str, ...], float]] = {
    plain: (("", "", "", "plain", "flat"), 3.0),
    shaded: (("", "", "shaded", "soft"), 2.0),
    shiny: (("shiny", "glossy", ""), 1.6),
    striped: (("striped",), 0.9),
    dotted: (("dotted", "spotted"), 0.9),
    checkered: (("checkered",), 0.7),
    rough: (("rough", "stone", "", "textured"), 1.2),
}
"""Each paint with the words that ask for it (an empty one: it needs no word) and its weight."""
