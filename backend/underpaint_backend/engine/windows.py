"""Large pictures, a window at a time: overlapping windows that are blended where they overlap.

For the denoiser that is MultiDiffusion (Bar-Tal et al. 2023, arXiv:2302.08113): at each step, each window is predicted
as a picture of the size that the model was trained on, and predictions are averaged where windows overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

OVERLAP = 1 / 4
"""Of a window's side, that it shares with the next at least."""


@dataclass(frozen=True)
class Window:
    """A part of a grid of cells."""

    top: int
    left: int
    height: int
    width: int

    def of(self, tensor: Tensor, scale: int = 1) -> Tensor:
        """This part of a tensor [..., H, W] with `scale` values along each side of a cell."""
        rows = slice(self.top * scale, (self.top + self.height) * scale)
        return tensor[..., rows, self.left * scale : (self.left + self.width) * scale]


def windows(size: tuple[int, int], side: tuple[int, int], multiple: int = 1) -> list[Window]:
    """Windows of `side` over a grid of `size`, both height and width in cells, that overlap by a quarter and more.

    All are of one size, and lie at multiples of `multiple`, of which `size` and `side` are multiples, too.
    """
    height, width = min(size[0], side[0]), min(size[1], side[1])
    tops, lefts = _begins(size[0], height, multiple), _begins(size[1], width, multiple)
    return [Window(top, left, height, width) for top in tops for left in lefts]


def side_for(size: tuple[int, int], area: int, multiple: int) -> tuple[int, int]:
    """Height and width of windows of about `area` cells for a grid of `size`: squares, unless it is narrower."""

    def fitted(length: float, most: int) -> int:
        return min(most, max(multiple, int(length) // multiple * multiple))

    height = fitted(math.sqrt(area), size[0])
    width = fitted(area / height, size[1]) if height < math.sqrt(area) - multiple else fitted(math.sqrt(area), size[1])
    if width < math.sqrt(area) - multiple:
        height = fitted(area / width, size[0])
    return height, width


def blended(parts: Sequence[Window], size: tuple[int, int], make: Callable[[Window], Tensor], scale: int = 1) -> Tensor:
    """One tensor [B, C, H, W] from what `make` returns for each window, of a grid of `size` (height, width) in cells.

    `scale` is how many values the result has along each side of a cell. A window counts least at its borders.
    """
    if len(parts) == 1:
        return make(parts[0])
    total: Tensor | None = None
    for window in parts:
        made = make(window)
        if total is None:
            shape = (*made.shape[:-2], size[0] * scale, size[1] * scale)
            total, weights = made.new_zeros(shape), made.new_zeros(shape[-2:])
        weight = _weight(window, scale).to(made)
        window.of(total, scale).add_(made * weight)
        window.of(weights, scale).add_(weight)
    assert total is not None
    return total.div_(weights)


def _begins(length: int, side: int, multiple: int) -> list[int]:
    if length == side:
        return [0]
    count = math.ceil((length - side) / (side * (1 - OVERLAP))) + 1
    even = (index * (length - side) / (count - 1) for index in range(count))
    return [*[int(begin) // multiple * multiple for begin in even][:-1], length - side]


def _weight(window: Window, scale: int) -> Tensor:
    def ramp(cells: int) -> Tensor:
        length = cells * scale
        places = torch.arange(length, dtype=torch.float32)
        nearest = torch.minimum(places + 0.5, length - places - 0.5)
        return (nearest / max(1.0, length * OVERLAP)).clamp(max=1)

    return ramp(window.height)[:, None] * ramp(window.width)[None, :]
