"""The context box and the working size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from underpaint_protocol.exceptions import EmptySelection
from underpaint_protocol.geometry import MAX_ASPECT, MIN_PADDING, PADDING, Box, context_box, working_size

sides = st.integers(1, 10_000)
canvases = st.builds(Box, st.just(0), st.just(0), sides, sides)
selections = st.builds(Box, st.integers(-12_000, 12_000), st.integers(-12_000, 12_000), sides, sides)


@given(selections, canvases)
def test_the_box_holds_the_selection_and_lies_on_the_canvas(selection: Box, canvas: Box) -> None:
    """Whatever is selected, the box covers what lies on the canvas and never leaves it."""
    inside = selection.intersection(canvas)
    if inside.empty:
        with pytest.raises(EmptySelection):
            context_box(selection, canvas)
    else:
        box = context_box(selection, canvas)
        assert box.intersection(inside) == inside
        assert canvas.intersection(box) == box


@given(selections, canvases)
def test_there_are_surroundings_wherever_the_canvas_has_them(selection: Box, canvas: Box) -> None:
    """Each axis of the box is padded on both sides together, unless it spans the canvas already."""
    inside = selection.intersection(canvas)
    if not inside.empty:
        box = context_box(selection, canvas)
        padding = max(MIN_PADDING, PADDING * max(inside.width, inside.height))
        assert box.width == canvas.width or box.width >= inside.width + 2 * padding
        assert box.height == canvas.height or box.height >= inside.height + 2 * padding


@given(selections, canvases)
def test_the_box_is_not_much_longer_than_wide(selection: Box, canvas: Box) -> None:
    """A thin selection gets a fuller box, as far as the canvas allows."""
    if not selection.intersection(canvas).empty:
        box = context_box(selection, canvas)
        assert box.width == canvas.width or box.width >= box.height / MAX_ASPECT
        assert box.height == canvas.height or box.height >= box.width / MAX_ASPECT


def test_a_selection_in_a_corner_moves_the_box_rather_than_cutting_it() -> None:
    """At the edge the box keeps its size and lies against the edge."""
    middle = context_box(Box(500, 500, 100, 100), Box(0, 0, 2000, 2000))
    corner = context_box(Box(0, 0, 100, 100), Box(0, 0, 2000, 2000))
    assert (corner.x, corner.y) == (0, 0)
    assert (corner.width, corner.height) == (middle.width, middle.height)


def test_a_single_pixel_gets_a_box() -> None:
    """One selected pixel is still painted with its surroundings."""
    box = context_box(Box(10, 10, 1, 1), Box(0, 0, 100, 100))
    assert box.width >= 2 * MIN_PADDING


def test_a_selection_beside_the_canvas_has_no_box() -> None:
    """There is nothing to paint into."""
    with pytest.raises(EmptySelection):
        context_box(Box(100, 0, 10, 10), Box(0, 0, 100, 100))


@given(sides, sides, st.integers(64 * 64, 1 << 21), st.sampled_from([8, 16, 32, 64]))
def test_the_working_size_suits_the_model(width: int, height: int, area: int, multiple: int) -> None:
    """Sides are multiples, and the area is near the native one for boxes of ordinary shape."""
    working = working_size(width, height, area, multiple)
    assert all(side > 0 and side % multiple == 0 for side in working)
    if max(width, height) <= 2 * min(width, height) and area >= (8 * multiple) ** 2:
        assert 0.8 < working[0] * working[1] / area < 1.25
