"""What a model works on."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from underpaint_backend.imaging.prepare import flatten, prepare

from tests.backend.imaging.pictures import masks, pictures, sizes


@given(st.data(), sizes, sizes, st.sampled_from([3, 4]), st.booleans())
def test_sizes_and_ranges(
    data: st.DataObject, size: tuple[int, int], working: tuple[int, int], channels: int, forget: bool
) -> None:
    """Pixels and coverage come at working size, and coverage stays between 0 and 1."""
    prepared = prepare(data.draw(pictures(size, channels)), data.draw(masks(size)), working, forget=forget)

    assert prepared.pixels.shape == (working[1], working[0], 3)
    assert prepared.coverage.shape == (working[1], working[0])
    assert prepared.coverage.min() >= 0
    assert prepared.coverage.max() <= 1


@given(st.data(), sizes, sizes)
def test_every_selected_pixel_is_covered(data: st.DataObject, size: tuple[int, int], working: tuple[int, int]) -> None:
    """A selected pixel, however faint or small, leaves some coverage at its place at working size."""
    mask = data.draw(masks(size))
    coverage = prepare(np.zeros((*mask.shape, 3), np.uint8), mask, working, forget=False).coverage

    for y, x in np.argwhere(mask > 0):
        row = min(int((y + 0.5) * working[1] / size[1]), working[1] - 1)
        column = min(int((x + 0.5) * working[0] / size[0]), working[0] - 1)
        assert coverage[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].any()


def test_a_single_pixel_anywhere_is_covered() -> None:
    """Of 39 columns that become 18, two lie with their middle on a border."""
    for column in range(39):
        mask = np.zeros((1, 39), np.uint8)
        mask[0, column] = 1
        coverage = prepare(np.zeros((1, 39, 3), np.uint8), mask, (18, 1), forget=False).coverage
        assert coverage[0, column * 18 // 39] > 0
        assert abs(coverage.sum() - 18 / 39 / 255) < 1e-6


@given(st.data(), sizes, sizes)
def test_nothing_is_covered_where_nothing_is_selected(
    data: st.DataObject, size: tuple[int, int], working: tuple[int, int]
) -> None:
    """An empty mask stays empty and a full one full."""
    canvas = data.draw(pictures(size, 3))
    empty = np.zeros((size[1], size[0]), np.uint8)

    assert not prepare(canvas, empty, working, forget=False).coverage.any()
    np.testing.assert_allclose(prepare(canvas, empty + 255, working, forget=False).coverage, 1, atol=1e-6)


@given(st.data(), sizes)
def test_soft_masks_stay_soft(data: st.DataObject, size: tuple[int, int]) -> None:
    """At its own size, a mask keeps every one of its 256 levels."""
    mask = data.draw(masks(size))

    coverage = prepare(np.zeros((*mask.shape, 3), np.uint8), mask, size, forget=False).coverage

    np.testing.assert_array_equal((coverage * 255).round(), mask)


@given(st.data(), sizes)
def test_opaque_canvases_are_not_touched(data: st.DataObject, size: tuple[int, int]) -> None:
    """An opaque canvas at its own size is passed on bit by bit."""
    canvas = data.draw(pictures(size, 4))
    canvas[..., 3] = 255

    prepared = prepare(canvas, data.draw(masks(size)), size, forget=False)

    np.testing.assert_array_equal(prepared.pixels, canvas[..., :3])


def test_transparent_canvas_is_white_paper() -> None:
    """Nothing is white, and half-transparent colours lie on white."""
    canvas = np.zeros((1, 2, 4), np.uint8)
    canvas[0, 1] = (255, 0, 0, 128)

    np.testing.assert_array_equal(flatten(canvas), [[[255, 255, 255], [255, 127, 127]]])


def test_transparency_inside_the_selection_takes_the_colours_around() -> None:
    """A hole in a green layer is shown to the model as green where it is selected, and as paper where it is not."""
    canvas = np.zeros((32, 32, 4), np.uint8)
    canvas[...] = (0, 200, 0, 255)
    canvas[8:24, 8:24] = 0
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:16] = 255

    pixels = prepare(canvas, mask, (32, 32), forget=False).pixels

    assert np.abs(pixels[12, 9].astype(int) - (0, 200, 0)).max() < 60
    np.testing.assert_array_equal(pixels[12, 20], (255, 255, 255))


def test_forgetting_removes_what_was_selected() -> None:
    """With `forget`, nothing of what was under the selection is left, and its surroundings are."""
    canvas = np.full((32, 32, 3), 50, np.uint8)
    canvas[8:24, 8:24] = 250
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255

    assert (prepare(canvas, mask, (32, 32), forget=True).pixels == 50).all()
    assert (prepare(canvas, mask, (32, 32), forget=False).pixels == canvas).all()
