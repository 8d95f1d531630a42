"""Pixels by content: a picture is cut into tiles of 256 px that lie on the grid of the canvas, each named by its hash.

Because the grid belongs to the canvas and not to the picture, a part of the canvas that did not change has the same
tiles in the next job, wherever the selection lies then, and only what changed travels.
"""

from __future__ import annotations

import hashlib
from typing import Dict, Iterator, List, Mapping, NamedTuple, Tuple, Union

from .exceptions import TileError
from .fields import DIGEST_SIZE

TILE = 256
"""Pixels along each side of a cell of the grid."""

MAX_TILE = TILE * TILE * 4 * 2
"""Bytes of the largest tile: four channels of 16 bits."""

Buffer = Union[bytes, bytearray, memoryview]


class Cell(NamedTuple):
    """The part of a picture that lies in one cell of the grid, in pixels of the picture."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)


def name_of(data: Buffer) -> bytes:
    """The name of a tile: the first 128 bits of the SHA-256 (FIPS 180-4) of its raw pixels.

    Most processors have instructions for it, which make it twice as fast as BLAKE2b, and every language has it.
    """
    return hashlib.sha256(data).digest()[:DIGEST_SIZE]


def cells(x: int, y: int, width: int, height: int) -> Iterator[Cell]:
    """The cells under a picture of `width` x `height` whose corner lies at (`x`, `y`) of the canvas, row by row."""
    for top, bottom in _spans(y, height):
        for left, right in _spans(x, width):
            yield Cell(left, top, right, bottom)


def cell_count(x: int, y: int, width: int, height: int) -> int:
    """How many cells there are, without listing them."""
    return _span_count(x, width) * _span_count(y, height)


def cut(pixels: Buffer, x: int, y: int, width: int, height: int, pixel_size: int) -> Iterator[bytes]:
    """The tiles of a picture, row by row; `pixel_size` is in bytes.

    Raises `TileError` if there are not exactly width x height pixels.
    """
    view = memoryview(pixels).cast("B") if len(pixels) else memoryview(b"")
    if len(view) != width * height * pixel_size:
        raise TileError(f"{width} x {height} pixels of {pixel_size} bytes were expected, {len(view)} bytes came")
    stride = width * pixel_size
    for left, top, right, bottom in cells(x, y, width, height):
        first, length = left * pixel_size, (right - left) * pixel_size
        starts = range(top * stride + first, bottom * stride + first, stride)
        yield b"".join([view[start : start + length] for start in starts])


def named(
    pixels: Buffer, x: int, y: int, width: int, height: int, pixel_size: int
) -> Tuple[Tuple[bytes, ...], Dict[bytes, bytes]]:
    """The names of a picture's tiles in order, and the tiles by name; equal ones are kept once."""
    names: List[bytes] = []
    tiles: Dict[bytes, bytes] = {}
    for tile in cut(pixels, x, y, width, height, pixel_size):
        name = name_of(tile)
        names.append(name)
        tiles.setdefault(name, tile)
    return tuple(names), tiles


def join(
    names: Tuple[bytes, ...], tiles: Mapping[bytes, Buffer], x: int, y: int, width: int, height: int, pixel_size: int
) -> bytearray:
    """Put a picture together.

    Raises `TileError` if there is not one name for each cell, or a tile is missing from `tiles` or has another size.
    """
    if len(names) != cell_count(x, y, width, height):
        raise TileError(f"{width} x {height} pixels at ({x}, {y}) do not have {len(names)} tiles")
    pixels = bytearray(width * height * pixel_size)
    view, stride = memoryview(pixels), width * pixel_size
    for name, cell in zip(names, cells(x, y, width, height)):
        tile = memoryview(tiles.get(name, b""))
        length = (cell.right - cell.left) * pixel_size
        if len(tile) != cell.area * pixel_size:
            raise TileError("a tile is missing, or has another size than its place")
        start = cell.top * stride + cell.left * pixel_size
        for offset in range(0, len(tile), length):
            view[start : start + length] = tile[offset : offset + length]
            start += stride
    return pixels


def _spans(start: int, length: int) -> Iterator[Tuple[int, int]]:
    """How the grid divides `length` pixels that begin at `start` of the canvas, counted from their beginning."""
    at = 0
    while at < length:
        end = min(length, (start + at) // TILE * TILE + TILE - start)
        yield at, end
        at = end


def _span_count(start: int, length: int) -> int:
    return (start + length - 1) // TILE - start // TILE + 1
