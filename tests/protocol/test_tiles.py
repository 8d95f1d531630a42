"""Pictures are cut on the canvas grid and put together again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from underpaint_protocol.exceptions import InvalidField, TileError
from underpaint_protocol.geometry import Box
from underpaint_protocol.images import image_of, pixels_of
from underpaint_protocol.messages import MAX_SIDE, MAX_TILES, Image
from underpaint_protocol.tiles import MAX_TILE, TILE, cell_count, cells, cut, join, name_of, named

corners = st.integers(0, 3 * TILE) | st.integers(0, 1 << 30)
sides = st.integers(1, 20) | st.integers(TILE - 3, 2 * TILE + 3)
channels = st.sampled_from((1, 3, 4))
depths = st.sampled_from((8, 16))


def noise(count: int, seed: int = 0) -> bytes:
    """`count` bytes in which no two places look alike."""
    return hashlib.shake_128(seed.to_bytes(8, "little")).digest(count)


def crop(canvas: bytes, width: int, box: Box, pixel_size: int) -> bytes:
    """The pixels of `box` of a canvas that is `width` px wide."""
    rows = range(box.y, box.bottom)
    return b"".join(canvas[(row * width + box.x) * pixel_size : (row * width + box.right) * pixel_size] for row in rows)


@given(corners, corners, sides, sides, channels, depths)
@example(255, 255, 2, 2, 4, 16)
@example(0, 0, 256, 256, 4, 16)
def test_a_picture_survives_cutting_and_joining(
    x: int, y: int, width: int, height: int, channels: int, depth: int
) -> None:
    """Whatever its place, size, channels and depth, a picture is the same after the way through tiles."""
    pixels = noise(width * height * channels * depth // 8)
    image, tiles = image_of(width, height, channels, pixels, x=x, y=y, depth=depth)
    assert image.size == len(pixels)
    assert set(image.tiles) == set(tiles)
    assert [len(tiles[name]) for name in image.tiles] == [size for _, size in image.tile_sizes]
    assert pixels_of(image, tiles) == pixels


@given(corners, corners, sides, sides)
def test_cells_cover_a_picture_and_lie_on_the_grid(x: int, y: int, width: int, height: int) -> None:
    """No pixel is left out or lies in two cells, and no cell crosses a line of the canvas grid."""
    found = list(cells(x, y, width, height))
    assert len(found) == cell_count(x, y, width, height)
    assert sum(cell.area for cell in found) == width * height
    for left, top, right, bottom in found:
        assert (x + left) // TILE == (x + right - 1) // TILE
        assert (y + top) // TILE == (y + bottom - 1) // TILE


boxes = st.builds(Box, st.integers(0, 300), st.integers(0, 300), st.integers(560, 700), st.integers(560, 700))


@given(boxes, boxes, st.integers(0, 999), st.integers(0, 999))
def test_what_did_not_change_has_the_same_names(before: Box, after: Box, x: int, y: int) -> None:
    """Wherever the box lies in the next job, whole tiles of the canvas keep their names, but for the one painted on."""
    width, height = 1000, 1000
    canvas = bytearray(noise(width * height))
    first = _whole_tiles(bytes(canvas), width, before)
    canvas[y * width + x] ^= 1
    second = _whole_tiles(bytes(canvas), width, after)
    changed = {place for place in first.keys() & second.keys() if first[place] != second[place]}
    painted = (x // TILE, y // TILE)
    assert changed == {painted} & first.keys() & second.keys()


def _whole_tiles(canvas: bytes, width: int, box: Box) -> dict[tuple[int, int], bytes]:
    """Names of the tiles that fill their cell, by column and row of the canvas grid."""
    names, _ = named(crop(canvas, width, box, 1), box.x, box.y, box.width, box.height, 1)
    places = zip(names, cells(box.x, box.y, box.width, box.height), strict=True)
    return {
        ((box.x + cell.left) // TILE, (box.y + cell.top) // TILE): name
        for name, cell in places
        if cell.area == TILE * TILE
    }


def test_a_name_is_the_hash_of_the_pixels() -> None:
    """The beginning of SHA-256, as FIPS 180-4 has it and SPEC.md says."""
    assert name_of(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223"


def test_equal_tiles_travel_once() -> None:
    """A picture of one colour has one tile of each size."""
    names, tiles = named(bytes(1024 * 1024 * 4), 0, 0, 1024, 1024, 4)
    assert (len(names), len(tiles)) == (16, 1)


def test_the_largest_tile_is_as_large_as_said() -> None:
    """Four channels of 16 bits fill the largest tile that a message may carry."""
    (tile,) = cut(bytes(MAX_TILE), 0, 0, TILE, TILE, 8)
    assert len(tile) == MAX_TILE


def test_any_buffer_is_cut() -> None:
    """Pixels may be bytes, a bytearray or a view of wider items; none at all are too few."""
    views = (bytes(8), bytearray(8), memoryview(bytes(8)).cast("H"))
    assert len({tuple(cut(view, 0, 0, 2, 1, 4)) for view in views}) == 1
    with pytest.raises(TileError):
        list(cut(b"", 0, 0, 2, 1, 4))


def test_a_wrong_number_of_pixels_is_refused() -> None:
    """Pixels that do not fill the picture are not cut."""
    with pytest.raises(TileError):
        image_of(2, 2, 4, bytes(15))


def test_sizes_of_tiles_cost_less_than_their_places() -> None:
    """A daemon asks for those of each submit; of a picture of 4096 tiles that took as long as ten small submits."""
    image = Image(MAX_SIDE, MAX_SIDE, 4, tuple(index.to_bytes(16, "big") for index in range(MAX_TILES)))

    def seconds(work: Callable[[], object]) -> float:
        begin = time.thread_time()
        work()
        return time.thread_time() - begin

    places = min(seconds(lambda: list(cells(0, 0, MAX_SIDE, MAX_SIDE))) for _ in range(5))
    sizes = min(seconds(lambda: list(image.tile_sizes)) for _ in range(5))
    assert sizes < places / 2


def test_a_picture_of_too_many_tiles_is_refused() -> None:
    """A message names a bounded number of tiles."""
    assert cell_count(0, 0, MAX_SIDE, MAX_SIDE) == MAX_TILES
    with pytest.raises(InvalidField):
        Image(MAX_SIDE, MAX_SIDE, 1, (bytes(16),) * (MAX_TILES + 64), x=1)


@pytest.mark.parametrize("tiles", [{}, {b"a" * 16: bytes(3)}, {b"a" * 16: bytes(5)}])
def test_a_missing_or_misfit_tile_is_noticed(tiles: dict[bytes, bytes]) -> None:
    """A picture is complete or an error."""
    with pytest.raises(TileError):
        join((b"a" * 16,), tiles, 0, 0, 2, 2, 1)


def test_each_cell_has_its_name() -> None:
    """Too few names do not make a picture with holes."""
    with pytest.raises(TileError):
        join((), {}, 0, 0, 2, 2, 1)
