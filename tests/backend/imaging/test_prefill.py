"""Filling holes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from underpaint_backend.imaging.prefill import prefill

from tests.backend.imaging.pictures import masks, pictures, sizes


@given(st.data(), sizes)
def test_known_pixels_stay(data: st.DataObject, size: tuple[int, int]) -> None:
    """What is no hole is not touched."""
    pixels, mask = data.draw(pictures(size, 3)), data.draw(masks(size))

    filled = prefill(pixels, mask)

    np.testing.assert_array_equal(filled[mask == 0], pixels[mask == 0])


@given(st.data(), sizes)
def test_what_is_in_a_hole_does_not_matter(data: st.DataObject, size: tuple[int, int]) -> None:
    """The filling depends on the surroundings alone."""
    pixels, mask = data.draw(pictures(size, 3)), data.draw(masks(size))
    other = np.where(mask[..., None] == 255, 255 - pixels, pixels).astype(np.uint8)

    np.testing.assert_array_equal(prefill(pixels, mask), prefill(other, mask))


@given(st.data(), sizes, st.tuples(*[st.integers(0, 255)] * 3))
def test_one_colour_fills_with_itself(data: st.DataObject, size: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """A hole in one colour takes that colour, wherever a single pixel is known."""
    pixels = np.full((size[1], size[0], 3), colour, np.uint8)
    mask = data.draw(masks(size))
    mask[0, 0] = 0

    np.testing.assert_array_equal(prefill(pixels, mask), pixels)


def test_a_picture_that_is_one_hole_becomes_paper() -> None:
    """Where nothing is known at all, there is white."""
    pixels = np.zeros((5, 7, 3), np.uint8)

    assert (prefill(pixels, np.full((5, 7), 255, np.uint8)) == 255).all()


def test_the_nearer_side_counts_more() -> None:
    """Between black and white, a hole goes from dark to bright."""
    pixels = np.zeros((16, 64, 3), np.uint8)
    pixels[:, 48:] = 255
    hole = np.zeros((16, 64), np.uint8)
    hole[:, 16:48] = 255

    row = prefill(pixels, hole)[8, :, 0].astype(int)

    assert row[18] < 80
    assert row[45] > 175
    assert row[20] < row[32] < row[44]
