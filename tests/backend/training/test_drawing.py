"""Tests of the pictures that the built-in model learns from."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from primer_inpaint.backgrounds import BACKGROUNDS, draw_background
from primer_inpaint.colours import COLOURS, NAMES, NamedColour, draw_colour, jittered, nearest
from primer_inpaint.masks import around, draw_box, draw_mask
from primer_inpaint.paints import PAINTS, Paint
from primer_inpaint.samples import SIZE, draw_sample
from primer_inpaint.shapes import SHAPES, Box, Shape, cover


def test_same_seed_same_picture() -> None:
    """A picture is determined by the seed and its number."""
    first, second = draw_sample(3, 14), draw_sample(3, 14)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.mask, second.mask)
    assert first.captions == second.captions


def test_other_number_other_picture() -> None:
    """Another number or another seed gives another picture."""
    pictures = {draw_sample(*numbers).image.tobytes() for numbers in ((3, 1), (3, 2), (4, 1), (4, 2))}
    assert len(pictures) == 4


def test_picture_contents() -> None:
    """Pictures are square, masks are all or nothing, and every picture has three captions."""
    for number in range(20):
        sample = draw_sample(5, number)
        assert sample.image.shape == (SIZE, SIZE, 3)
        assert sample.mask.shape == (SIZE, SIZE)
        assert set(np.unique(sample.mask)) <= {0, 255}
        assert len(sample.captions) == 3


@pytest.mark.parametrize("colour", COLOURS, ids=NAMES)
def test_jitter_keeps_the_name(colour: NamedColour) -> None:
    """However a named colour varies, its own name stays the nearest."""
    rng = np.random.default_rng(1)
    assert {nearest(jittered(rng, colour) * 255) for _ in range(300)} == {colour.name}


def test_all_colours_are_drawn() -> None:
    """No colour is drawn less than half as often as any other."""
    rng = np.random.default_rng(2)
    counts = Counter(draw_colour(rng).name for _ in range(3000))
    assert set(counts) == set(NAMES)
    assert min(counts.values()) > max(counts.values()) / 2


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_shapes_fill_their_selection(shape: Shape) -> None:
    """At its smallest, every shape covers more than half of an elliptical selection around it."""
    ellipse = cover(SHAPES[0], Box(64, 64, 50, 50), SIZE) > 0.5
    smallest = 50 * shape.scale[0]
    covered = cover(shape, Box(64, 64, smallest, smallest), SIZE)[ellipse].mean()
    assert covered > 0.52


@pytest.mark.parametrize("paint", PAINTS, ids=[paint.__name__ for paint in PAINTS])
def test_paints_give_pictures(paint: Paint) -> None:
    """Every paint fills a whole picture with numbers about 0..1."""
    picture = paint(np.random.default_rng(3), np.array([0.8, 0.1, 0.1], np.float32), 64, Box(32, 32, 20, 20))
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.float32
    assert -0.2 < picture.min() <= picture.max() < 1.2


def test_backgrounds_give_pictures() -> None:
    """Every kind of surroundings is a picture with values in 0..1."""
    rng = np.random.default_rng(4)
    for background in BACKGROUNDS:
        assert background(rng, 96).shape == (96, 96, 3)
    for _ in range(20):
        picture = draw_background(rng, 96)
        assert 0 <= picture.min() <= picture.max() <= 1


def test_masks_fill_their_box() -> None:
    """A selection lies within the picture, has at least a quarter of its side, and fills most of its box."""
    rng = np.random.default_rng(5)
    for _ in range(60):
        box = draw_box(rng, SIZE)
        mask = draw_mask(rng, box, SIZE)
        rows, columns = np.nonzero(mask)
        assert set(np.unique(mask)) == {0, 1}
        assert min(box.half_width, box.half_height) * 2 >= 0.25 * SIZE
        assert abs(columns.min() - (box.x - box.half_width)) < 0.35 * box.half_width
        assert abs(rows.max() - (box.y + box.half_height)) < 0.35 * box.half_height


def test_a_mask_around_a_shape_holds_it() -> None:
    """A selection drawn around a shape contains the whole shape."""
    heart = cover(SHAPES[5], Box(60, 60, 30, 30), SIZE)
    assert around(heart, 4)[heart > 0.5].all()
