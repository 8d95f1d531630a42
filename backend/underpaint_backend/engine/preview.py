"""Previews: latents as a small picture, one pixel for each latent cell, by a linear projection.

The projection is fitted to the loaded VAE itself. It costs one small matrix product where decoding takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .exceptions import BadFiles

PICTURES = 8
SIDE = 128
"""The fit looks at 8 pictures of 128 px at least: 2048 cells of a VAE that divides sides by 8, for 5 unknowns."""
CELLS_PER_UNKNOWN = 16
"""With fewer, what fits these pictures would fit no other: FLUX.2 has 129 unknowns, and 64 cells in a picture."""


@dataclass(frozen=True)
class LatentToRGB:
    """The projection: `weight` [C, 3], `bias` [3]. `fit` is R², the share of the colours' variance that it explains."""

    weight: Tensor
    bias: Tensor
    fit: float

    @classmethod
    def of(cls, encode: Callable[[Tensor], Tensor], device: torch.device) -> LatentToRGB:
        """The least-squares projection for the VAE behind `encode`.

        `encode` makes latents [B, C, h, w], as the denoiser sees them, from pictures [B, 3, H, W] in -1..1.

        Raises `BadFiles` if what it makes is not finite.
        """
        first = encode(drawn_pictures(1, SIDE, seed=0).to(device))
        unknowns, cells = first.shape[1] + 1, first[0, 0].numel()
        pictures = drawn_pictures(max(PICTURES, math.ceil(CELLS_PER_UNKNOWN * unknowns / cells)), SIDE, seed=0)
        rest = (encode(picture.to(device)) for picture in pictures[1:, None])
        latents = torch.cat([part.float().cpu() for part in (first, *rest)])
        if not bool(latents.isfinite().all()):
            raise BadFiles("its autoencoder makes numbers that are none")
        colours = functional.interpolate(pictures, size=latents.shape[-2:], mode="area")
        known = latents.movedim(1, -1).flatten(0, 2)
        known = torch.cat([known, torch.ones(len(known), 1)], dim=1)
        wanted = colours.movedim(1, -1).flatten(0, 2)
        # "gelsd" also copes with latent channels that hold nothing
        solution = torch.linalg.lstsq(known, wanted, driver="gelsd").solution
        missed = (known @ solution - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
        return cls(solution[:-1].to(device), solution[-1].to(device), float(1 - missed))

    def __call__(self, latents: Tensor) -> Tensor:
        """The pictures [B, h, w, 3], 0..255 as uint8, of latents [B, C, h, w]; nothing here waits for the device."""
        colours = latents.float().movedim(1, -1) @ self.weight + self.bias
        return colours.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def drawn_pictures(count: int, side: int, seed: int) -> Tensor:
    """Pictures [count, 3, side, side] in -1..1 with soft and hard colour fields and discs in every colour."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([_drawn(side, generator) for _ in range(count)])


def _drawn(side: int, generator: torch.Generator) -> Tensor:
    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    fields = random(1, 3, 2 + int(random(1) * 7), 2 + int(random(1) * 7))
    mode = "bicubic" if random(1) < 0.5 else "nearest"
    picture = functional.interpolate(fields, size=(side, side), mode=mode)[0].clamp(0, 1)
    across = torch.linspace(0, 1, side)
    for _ in range(3):
        x, y, radius = random(3)
        disc = (across[None, :] - x) ** 2 + (across[:, None] - y) ** 2 < (0.3 * radius) ** 2
        picture = torch.where(disc, random(3, 1, 1), picture)
    return picture * 2 - 1
