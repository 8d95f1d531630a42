"""One training picture: surroundings, a selection, and what a caption asks for within it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import captions, masks, noise, paints
from .backgrounds import blurred, draw_background, over
from .captions import Subject
from .colours import COLOURS, Floats, NamedColour, draw_colour, jittered, nearest
from .shapes import SHAPES, Box, blob, cover

SIZE = 128
"""Side of the pictures in px."""
CAPTIONS = 3
"""Wordings drawn for each picture."""


@dataclass(frozen=True)
class Sample:
    """`image` `[SIZE, SIZE, 3]` and `mask` `[SIZE, SIZE]` (0 or 255), uint8, with its captions."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Painted:
    """What was painted: its picture, where it is, and what it is."""

    picture: Floats
    coverage: Floats
    subject: Subject


def _draw_paint(rng: np.random.Generator) -> tuple[paints.Paint, str]:
    choices = list(paints.PAINTS)
    weights = np.array([paints.PAINTS[paint][1] for paint in choices])
    paint = choices[int(rng.choice(len(choices), p=weights / weights.sum()))]
    words = paints.PAINTS[paint][0]
    return paint, words[int(rng.integers(len(words)))]


def _in_colour(rng: np.random.Generator, paint: paints.Paint, colour: NamedColour, box: Box, size: int) -> Floats:
    """The paint in the colour, or plain paint where light changed what one would call it."""
    tone = jittered(rng, colour)
    picture = np.clip(paint(rng, tone, size, box), 0, 1)
    x, y = int(box.x), int(box.y)
    a, b = int(box.half_width * 0.7), int(box.half_height * 0.7)
    seen = picture[max(y - b, 0) : y + b + 1 : 3, max(x - a, 0) : x + a + 1 : 3]
    if nearest(np.median(seen, axis=(0, 1)) * 255) == colour.name:
        return picture
    return paints.plain(rng, tone, size, box)


def _two_coloured(
    rng: np.random.Generator, first: Floats, colour: NamedColour, size: int
) -> tuple[Floats, NamedColour]:
    """Broad stripes of a second colour over the first, and that colour."""
    others = [other for other in COLOURS if other.name != colour.name]
    second = others[int(rng.integers(len(others)))]
    x, y = paints.coordinates(size)
    angle = rng.choice([0.0, np.pi / 2, np.pi / 4])
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / rng.uniform(18, 30))
    band = np.asarray(np.clip(wave * 4 + 0.5, 0, 1), np.float32)
    return over(first, jittered(rng, second), band), second


def _noun_and_coverage(rng: np.random.Generator, box: Box, size: int, paint: paints.Paint) -> tuple[str, Floats]:
    """What the object is called and where it is, filling the selection's box."""
    kind = rng.random()
    turn = rng.normal(0, 0.08)
    if kind < 0.14:
        word = captions.THINGS[int(rng.integers(len(captions.THINGS)))]
        return word, blob(rng, _scaled(box, rng.uniform(0.92, 1.05)), size)
    if kind < 0.24 and paint in (paints.shiny, paints.shaded, paints.plain):
        word = captions.ROUND_WORDS[int(rng.integers(len(captions.ROUND_WORDS)))]
        return word, cover(SHAPES[0], _scaled(box, rng.uniform(0.85, 1.0)), size)
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    word = shape.words[0] if rng.random() < 0.85 else shape.words[-1]
    aspect = box.half_width / box.half_height
    if shape.name == "circle" and not 0.75 < aspect < 1.33:
        word = "oval"
    if shape.name == "square" and not 0.75 < aspect < 1.33:
        word = "rectangle"
    return word, cover(shape, _scaled(box, rng.uniform(*shape.scale)), size, turn)


def _scaled(box: Box, scale: float) -> Box:
    return Box(box.x, box.y, box.half_width * scale, box.half_height * scale)


def _with_edges(rng: np.random.Generator, below: Floats, painted: Painted) -> Floats:
    """The object over its surroundings: sometimes with a shadow, sometimes with an outline."""
    if rng.random() < 0.3:
        shadow = np.roll(painted.coverage, tuple(rng.integers(1, 5, 2).tolist()), (0, 1))
        below = over(below, below * rng.uniform(0.5, 0.85), blurred(shadow, 2))
    picture = painted.picture
    if rng.random() < 0.15:
        rim = np.asarray(np.clip((0.95 - blurred(painted.coverage, 2)) * 3, 0, 1), np.float32)
        picture = over(picture, picture * 0.35, rim)
    return over(below, picture, painted.coverage)


def _object(rng: np.random.Generator, box: Box, size: int, whole: bool) -> Painted:
    colour = draw_colour(rng)
    paint, word = _draw_paint(rng)
    picture = _in_colour(rng, paint, colour, box, size)
    second = None
    if rng.random() < 0.05:
        picture, second = _two_coloured(rng, picture, colour, size)
        word = ("striped", "")[int(rng.integers(2))]
    noun, coverage = _noun_and_coverage(rng, box, size, paint)
    surroundings = draw_colour(rng) if whole and rng.random() < 0.5 else None
    return Painted(picture, coverage, Subject(colour, noun, word, surroundings, second))


def _fill(rng: np.random.Generator, box: Box, mask: Floats, size: int) -> Painted:
    colour = draw_colour(rng)
    paint, word = _draw_paint(rng)
    picture = _in_colour(rng, paint, colour, box, size)
    coverage = mask if rng.random() < 0.75 else np.ones_like(mask)
    return Painted(picture, blurred(coverage, 0.6), Subject(colour, "", word))


def _finished(rng: np.random.Generator, picture: Floats) -> NDArray[np.uint8]:
    if rng.random() < 0.25:
        picture = picture + noise.field(rng, len(picture), 0.0)[..., None] * 0.012
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def draw_sample(seed: int, index: int) -> Sample:
    """The picture number `index` of the data with this seed; the same one every time."""
    rng = np.random.default_rng([seed, index])
    size = SIZE
    box = masks.draw_box(rng, size)
    kind = rng.random()
    whole = kind < 0.08
    mask = np.ones((size, size), np.float32) if whole else masks.draw_mask(rng, box, size)
    below = draw_background(rng, size)
    if 0.08 <= kind < 0.13:
        words = tuple(captions.nothing(rng) for _ in range(CAPTIONS))
        return Sample(_finished(rng, below), (mask * 255).astype(np.uint8), words)
    if kind > 0.8:
        painted = _fill(rng, box, mask, size)
    else:
        painted = _object(rng, box, size, whole)
        if painted.subject.surroundings:
            below = below * 0 + jittered(rng, painted.subject.surroundings)
        if not whole and rng.random() < 0.15:
            mask = masks.around(painted.coverage, int(rng.integers(2, 7)))
    # Outside the selection nothing may change: what is painted ends where the selection does.
    picture = over(below, _with_edges(rng, below, painted), blurred(mask, 0.7))
    words = tuple(captions.caption(rng, painted.subject) for _ in range(CAPTIONS))
    return Sample(_finished(rng, picture), (mask * 255).astype(np.uint8), words)
