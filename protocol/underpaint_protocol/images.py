"""From pixels to the `Image` that names them, and back."""

from __future__ import annotations

from typing import Dict, Mapping, Tuple

from .messages import Image
from .tiles import Buffer, join, named


def image_of(
    width: int, height: int, channels: int, pixels: Buffer, *, x: int = 0, y: int = 0, depth: int = 8
) -> Tuple[Image, Dict[bytes, bytes]]:
    """The `Image` of raw pixels whose corner lies at (`x`, `y`) of the canvas, and its tiles by name.

    Raises `TileError` if there are not exactly width x height pixels of that many channels and bits.
    """
    names, tiles = named(pixels, x, y, width, height, channels * depth // 8)
    return Image(width, height, channels, names, x, y, depth), tiles


def pixels_of(image: Image, tiles: Mapping[bytes, Buffer]) -> bytearray:
    """The pixels of `image`, row by row without padding.

    Raises `TileError` if one of its tiles is not among `tiles` or has the wrong size.
    """
    return join(image.tiles, tiles, image.x, image.y, image.width, image.height, image.pixel_size)
