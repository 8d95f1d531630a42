"""Which part of a canvas goes with a selection, and at what size a model works on it.

Pure functions that plugin and daemon share. Boxes are in whole pixels; the right and bottom edge are exclusive.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Tuple

from .exceptions import EmptySelection

PADDING = 0.35
"""Surroundings on each side, as a share of the selection's longer side."""

MIN_PADDING = 24
"""Surroundings on each side, at least, in pixels of the canvas."""

MAX_ASPECT = 2.0
"""How much longer than wide a context box becomes, where the canvas allows a fuller one."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def empty(self) -> bool:
        return self.width <= 0 or self.height <= 0

    def intersection(self, other: Box) -> Box:
        """The pixels that lie in both; an empty box if there are none."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Box(x, y, max(0, right - x), max(0, bottom - y))


def context_box(selection: Box, canvas: Box) -> Box:
    """The part of the canvas that a model should see to paint into `selection`.

    It holds the selection (clipped to the canvas), surroundings on every side, and is not much longer than wide; it
    is moved rather than cut where it would leave the canvas, and never larger than the canvas.

    Raises `EmptySelection` if the selection has no pixel on the canvas.
    """
    inside = selection.intersection(canvas)
    if inside.empty:
        raise EmptySelection("the selection has no pixel on the canvas")
    padding = max(MIN_PADDING, math.ceil(PADDING * max(inside.width, inside.height)))
    width, height = inside.width + 2 * padding, inside.height + 2 * padding
    width, height = max(width, math.ceil(height / MAX_ASPECT)), max(height, math.ceil(width / MAX_ASPECT))
    x, width = _span(inside.x, inside.width, width, canvas.x, canvas.width)
    y, height = _span(inside.y, inside.height, height, canvas.y, canvas.height)
    return Box(x, y, width, height)


def _span(start: int, length: int, wanted: int, canvas_start: int, canvas_length: int) -> Tuple[int, int]:
    """Start and length of a span of `wanted` pixels around the given one, kept on the canvas."""
    wanted = min(wanted, canvas_length)
    centred = start - (wanted - length) // 2
    return min(max(centred, canvas_start), canvas_start + canvas_length - wanted), wanted


def working_size(width: int, height: int, native_area: int, multiple: int) -> Tuple[int, int]:
    """The size in pixels at which a model works on a box of `width` x `height`.

    About `native_area` square pixels in the shape of the box, with sides that are multiples of `multiple`.
    """
    scale = math.sqrt(native_area / (width * height))
    return _multiple(width * scale, multiple), _multiple(height * scale, multiple)


def _multiple(length: float, multiple: int) -> int:
    return max(1, round(length / multiple)) * multiple
