"""What lay where on the canvas when the last job was accepted: the bases of tiles that a brush stroke changed."""

from __future__ import annotations

from typing import Dict, Iterator, Mapping, NamedTuple, Tuple

from .messages import Image, Request
from .tiles import cells

Place = Tuple[int, ...]
"""Position and size on the canvas in px, and the bytes of a pixel."""


class Base(NamedTuple):
    """A tile that the server has, with its pixels."""

    name: bytes
    data: bytes


class Canvas:
    """The tiles of the last request that the server accepted, by their places."""

    def __init__(self) -> None:
        self._tiles: Dict[Place, Base] = {}

    def show(self, request: Request, tiles: Mapping[bytes, bytes]) -> None:
        """The server has the pixels of `request` now; those of earlier ones are forgotten."""
        if request.images:
            found = (pair for image in request.images for pair in _places(image))
            self._tiles = {place: Base(name, tiles[name]) for place, name in found}

    def bases_of(self, request: Request) -> Dict[bytes, Base]:
        """For each tile of `request`, by name, what lay at its place before."""
        found = (pair for image in request.images for pair in _places(image))
        return {name: self._tiles[place] for place, name in found if place in self._tiles}


def _places(image: Image) -> Iterator[Tuple[Place, bytes]]:
    for name, cell in zip(image.tiles, cells(image.x, image.y, image.width, image.height)):
        left, top, right, bottom = cell
        yield (image.x + left, image.y + top, right - left, bottom - top, image.pixel_size), name
