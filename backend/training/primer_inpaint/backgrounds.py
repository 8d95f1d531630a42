"""Surroundings that look like photographs, drawn by code: the model paints into real ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from . import noise, paints
from .colours import Floats, any_colour
from .shapes import SHAPES, Box, blob, cover

Background = Callable[[np.random.Generator, int], Floats]


def over(below: Floats, above: Floats, coverage: Floats) -> Floats:
    """The picture or colour `above` laid over the picture `below` where `coverage` is 1."""
    return np.asarray(below + (above - below) * coverage[..., None], np.float32)


def blurred(picture: Floats, radius: float) -> Floats:
    """The picture `[H, W, 3]` or plane `[H, W]` out of focus, `radius` in px."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)), np.float32) / np.float32(255)


def _mapped(plane: Floats, palette: list[Floats]) -> Floats:
    """The plane, 0..1, shown in the colours of the palette, mixed between neighbours."""
    position = np.clip(plane, 0, 1) * (len(palette) - 1)
    stops = np.stack(palette)
    channels = [np.interp(position, np.arange(len(palette)), stops[:, c]) for c in range(3)]
    return np.stack(channels, -1).astype(np.float32)


def _palette(rng: np.random.Generator, colours: int) -> list[Floats]:
    return [any_colour(rng) for _ in range(colours)]


def flat(rng: np.random.Generator, size: int) -> Floats:
    """Paper or an empty canvas: one colour."""
    return np.broadcast_to(any_colour(rng), (size, size, 3)).astype(np.float32)


def gradient(rng: np.random.Generator, size: int) -> Floats:
    """A wall or a sky: colours that change slowly, in a line or around a lamp."""
    x, y = paints.coordinates(size)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        plane = (x * np.cos(angle) + y * np.sin(angle)) / size / 1.4 + rng.uniform(0, 1)
    else:
        plane = np.hypot(x - rng.uniform(0, size), y - rng.uniform(0, size)) / size
    return _mapped(np.asarray(plane, np.float32), _palette(rng, int(rng.integers(2, 4))))


def clouds(rng: np.random.Generator, size: int) -> Floats:
    """Sky, stone, water or cloth: a 1/f field in a few colours."""
    slope = float(rng.choice([0.7, 1.0, 1.0, 1.4, 1.8]))
    plane = noise.field(rng, size, slope, int(rng.choice([1, 1, 2, 5])))
    if rng.random() < 0.5:
        plane = plane.T
    return _mapped(0.5 + plane * rng.uniform(0.1, 0.3), _palette(rng, int(rng.integers(2, 5))))


def grain_of_wood(rng: np.random.Generator, size: int) -> Floats:
    """Planks: bent rings, drawn out along one direction."""
    x, y = paints.coordinates(size)
    rings = x * rng.uniform(0.03, 0.12) + noise.field(rng, size, 1.8) * rng.uniform(0.3, 1.2)
    plane = 0.5 + 0.25 * np.sin(rings * 6) + 0.12 * noise.field(rng, size, 0.7, 4).T
    wood = np.array([rng.uniform(0.4, 0.75), rng.uniform(0.28, 0.5), rng.uniform(0.15, 0.35)])
    picture = _mapped(plane, [np.asarray(wood * 0.6, np.float32), np.asarray(wood, np.float32)])
    board = rng.uniform(20, 60)
    gaps = np.clip(1 - (y % board) * 0.5, 0, 1)
    picture = over(picture, picture * 0.4, np.asarray(gaps, np.float32))
    return np.ascontiguousarray(picture.transpose(1, 0, 2)) if rng.random() < 0.5 else picture


def cloth(rng: np.random.Generator, size: int) -> Floats:
    """A weave with folds."""
    x, y = paints.coordinates(size)
    period = rng.uniform(2.5, 7)
    weave = np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period)
    light = weave * rng.uniform(0.02, 0.1) + noise.field(rng, size, 1.8) * rng.uniform(0.05, 0.2)
    return paints.lit(any_colour(rng), np.asarray(light, np.float32))


def ground(rng: np.random.Generator, size: int) -> Floats:
    """A floor that runs to a horizon, under a wall or a sky."""
    x, y = paints.coordinates(size)
    horizon = size * rng.uniform(0.1, 0.6)
    depth = size * rng.uniform(0.3, 0.8) / np.maximum(y - horizon, 1)
    across = np.asarray((x - size * rng.uniform(0.2, 0.8)) * depth, np.float32)
    away = np.asarray(depth * size * 0.4, np.float32)
    if rng.random() < 0.35:
        tile = rng.uniform(15, 40)
        plane = 0.5 + 0.3 * np.sign(np.sin(across / tile * np.pi) * np.sin(away / tile * np.pi))
    else:
        plane = 0.5 + 0.2 * noise.lookup(rng, across, away, float(rng.choice([0.7, 1.0, 1.4])))
    floor = _mapped(np.asarray(plane, np.float32), _palette(rng, 2))
    above = BACKGROUNDS[int(rng.integers(0, 3))](rng, size)
    return over(above, floor, np.asarray(np.clip(y - horizon, 0, 1), np.float32))


def lights(rng: np.random.Generator, size: int) -> Floats:
    """Discs of light out of focus."""
    picture = Image.fromarray((gradient(rng, size) * rng.uniform(0.3, 0.9) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(int(rng.integers(6, 30))):
        x, y, radius = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(3, size / 6)
        red, green, blue = (any_colour(rng) * 255).astype(int).tolist()
        shade = (red, green, blue, int(rng.integers(40, 160)))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), shade)
    return blurred(np.asarray(picture, np.float32) / np.float32(255), rng.uniform(1, 6))


def foliage(rng: np.random.Generator, size: int) -> Floats:
    """Many small overlapping leaves, pebbles or petals of related colours."""
    base = any_colour(rng)
    if rng.random() < 0.5:
        base = np.array([rng.uniform(0.1, 0.4), rng.uniform(0.25, 0.6), 0.12], np.float32)
    picture = Image.new("RGB", (size, size), tuple((base * 120).astype(int).tolist()))
    draw = ImageDraw.Draw(picture)
    large = rng.uniform(3, 14)
    for index in range(int(rng.integers(60, 160))):
        x, y = rng.uniform(-5, size + 5, 2)
        a, b = rng.uniform(0.4, 1, 2) * large
        shade = np.clip(base * rng.uniform(0.4, 1.0 + index / 300) + rng.normal(0, 0.04, 3), 0, 1)
        draw.ellipse((x - a, y - b, x + a, y + b), tuple((shade * 255).astype(int).tolist()))
    return np.asarray(picture, np.float32) / np.float32(255)


def _things(rng: np.random.Generator, size: int, picture: Floats) -> Floats:
    """Objects with shading and shadows, as other things in the picture."""
    for _ in range(int(rng.integers(1, 6))):
        half = rng.uniform(0.06, 0.35, 2) * size
        box = Box(*rng.uniform(0, size, 2).tolist(), *half.tolist())
        if rng.random() < 0.5:
            coverage = blob(rng, box, size)
        else:
            coverage = cover(SHAPES[int(rng.integers(len(SHAPES)))], box, size, rng.uniform(-1, 1))
        shadow = np.roll(coverage, tuple(rng.integers(1, 6, 2).tolist()), (0, 1))
        picture = over(picture, picture * rng.uniform(0.5, 0.9), blurred(shadow, 2))
        paint = (paints.shaded, paints.shiny, paints.rough, paints.plain)[int(rng.integers(4))]
        picture = over(picture, paint(rng, any_colour(rng), size, box), coverage)
    return picture


BACKGROUNDS: tuple[Background, ...] = (
    flat,
    gradient,
    clouds,
    cloth,
    grain_of_wood,
    ground,
    lights,
    foliage,
)
WEIGHTS = np.array([0.12, 0.14, 0.18, 0.1, 0.1, 0.14, 0.1, 0.12])


def _as_photographed(rng: np.random.Generator, picture: Floats) -> Floats:
    """Light, focus, vignette and grain of a camera."""
    size = len(picture)
    if rng.random() < 0.35:
        picture = blurred(picture, rng.uniform(0.5, 3.0))
    light = noise.field(rng, size, 1.8) * rng.uniform(0, 0.14) + rng.uniform(-0.15, 0.1)
    if rng.random() < 0.3:
        x, y = paints.coordinates(size)
        light = light - rng.uniform(0.1, 0.5) * np.hypot(x / size - 0.5, y / size - 0.5) ** 2
    picture = paints.lit(picture, np.asarray(light, np.float32))
    if rng.random() < 0.5:
        picture = picture + noise.field(rng, size, 0.0)[..., None] * rng.uniform(0.005, 0.035)
    return np.asarray(np.clip(picture, 0, 1), np.float32)


def draw_background(rng: np.random.Generator, size: int) -> Floats:
    """Surroundings `[size, size, 3]`, 0..1, with or without things standing in them."""
    background = BACKGROUNDS[int(rng.choice(len(BACKGROUNDS), p=WEIGHTS / WEIGHTS.sum()))]
    picture = background(rng, size)
    if background is flat and rng.random() < 0.6:
        return picture
    if rng.random() < 0.5:
        picture = _things(rng, size, picture)
    return _as_photographed(rng, picture)
