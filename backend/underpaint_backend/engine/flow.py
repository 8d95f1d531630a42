"""What the flow transformers of FLUX.1 and FLUX.2 share: pictures as sequences of tokens, and shifted schedules.

Rectified flow (Liu et al. 2022, arXiv:2209.03003) goes in a straight line from noise at sigma 1 to the picture at 0.
How long it stays among the noisy levels is shifted with the size of the picture (Esser et al. 2024, arXiv:2403.03206).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def pack(latents: Tensor) -> Tensor:
    """Latents [B, C, h, w] as tokens [B, h/2 · w/2, 4C], one for each 2×2 cells, row by row.

    Raises `ValueError` if a side is odd.
    """
    height, width = latents.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"latents of {width}×{height} cells cannot be packed in twos")
    return functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens [B, h/2 · w/2, 4C] as latents [B, C, h, w] of `height` h and `width` w."""
    cells = tokens.transpose(1, 2).reshape(len(tokens), -1, height // 2, width // 2)
    return functional.pixel_shuffle(cells, 2)


def positions(height: int, width: int, time: int = 0, axes: int = 3) -> Tensor:
    """Where the tokens of a grid lie, [height · width, axes], row by row: time, row, column, and 0 for more axes."""
    ids = torch.zeros(height, width, axes)
    ids[..., 0] = time
    ids[..., 1] = torch.arange(height)[:, None]
    ids[..., 2] = torch.arange(width)
    return ids.flatten(0, 1)


def linear_shift(tokens: int, config: Mapping[str, Any]) -> float:
    """The `mu` by which FLUX.1 shifts its noise levels for a picture of so many tokens.

    It is a line through the two points that the configuration of the scheduler names.
    """
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (high - low) / (many - few)
    return float(tokens * slope + low - slope * few)


def even_sigmas(steps: int) -> list[float]:
    """The noise levels of so many steps before they are shifted: evenly from 1 down to 1 / steps."""
    return torch.linspace(1, 1 / steps, steps, dtype=torch.float64).tolist()


def fitted_size(size: tuple[int, int], area: int, multiple: int) -> tuple[int, int]:
    """Width and height of the largest picture of the same shape as `size` that has at most `area` px².

    It is never enlarged. Both sides are multiples of `multiple`, at least one of it, and the shape bends for that.
    """
    width, height = size
    scale = min(1.0, math.sqrt(area / (width * height)))

    def side(length: int, other: int) -> int:
        most = area // max(multiple, other)
        return max(multiple, min(int(length * scale + 1e-6), most) // multiple * multiple)

    return side(width, int(height * scale)), side(height, int(width * scale))


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture [1, 3, H, W] in -1..1 at another size (width, height)."""
    width, height = size
    if picture.shape[-2:] == (height, width):
        return picture
    scaled = functional.interpolate(picture, size=(height, width), mode="bicubic", antialias=True)
    return scaled.clamp(-1, 1)
