"""What is laid over the canvas."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from underpaint_backend.imaging.composite import cut_out, opaque

from tests.backend.imaging.pictures import masks, pictures, sizes


@given(st.data(), sizes, sizes, st.sampled_from([3, 4]))
def test_nothing_changes_outside_the_selection(
    data: st.DataObject, size: tuple[int, int], working: tuple[int, int], channels: int
) -> None:
    """Where the mask is 0, colours are the canvas' own, bit by bit, and alpha is 0; alpha is the mask everywhere."""
    canvas = data.draw(pictures(size, channels))
    mask = data.draw(masks(size))
    painted = data.draw(pictures(working, 3))

    result = cut_out(painted, canvas, mask)

    assert result.shape == (size[1], size[0], 4)
    np.testing.assert_array_equal(result[..., 3], mask)
    np.testing.assert_array_equal(result[mask == 0, :3], canvas[mask == 0, :3])


@given(st.data(), sizes)
def test_what_was_painted_shows_where_anything_is_selected(data: st.DataObject, size: tuple[int, int]) -> None:
    """Inside the selection, soft parts included, colours are those of the model: softness is in alpha alone."""
    canvas, mask, painted = data.draw(pictures(size, 4)), data.draw(masks(size)), data.draw(pictures(size, 3))

    result = cut_out(painted, canvas, mask)

    np.testing.assert_array_equal(result[mask > 0, :3], painted[mask > 0])


@given(st.data(), sizes, sizes)
def test_whole_pictures_are_opaque(data: st.DataObject, working: tuple[int, int], size: tuple[int, int]) -> None:
    """A picture without a canvas has the wanted size and no transparency."""
    result = opaque(data.draw(pictures(working, 3)), size)

    assert result.shape == (size[1], size[0], 4)
    assert (result[..., 3] == 255).all()
