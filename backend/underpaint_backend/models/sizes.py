"""Of how many pixels the sides of a picture have to be multiples, told from the configurations of a model's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAST = 8
"""What pipelines of diffusers ask for at least, however fine their autoencoder is."""
UNTOLD = 64
"""Where the configurations do not tell: what the coarsest of the known models take, and thus all others, too."""


def size_multiple(vae: Mapping[str, Any] | None, denoiser: Mapping[str, Any]) -> int:
    """Pixels along each side of what the denoiser takes as one: a cell of the autoencoder, or a patch of cells.

    `vae` is None where a model has none: its denoiser sees pixels, and halves them a few times.
    """
    if vae is None:
        return LEAST
    cell = cell_side(vae)
    return UNTOLD if cell is None else max(LEAST, cell * _patch(vae, denoiser))


def cell_side(vae: Mapping[str, Any]) -> int | None:
    """Pixels along each side of a latent cell; None if this is a kind of autoencoder that nobody knows here."""
    told = vae.get("scale_factor_spatial")
    if isinstance(told, int):
        return told
    # Each kind halves the sides between two of its stages, and names these in its own way.
    for stages in ("block_out_channels", "encoder_block_out_channels"):
        if isinstance(vae.get(stages), (list, tuple)):
            return 1 << (len(vae[stages]) - 1)
    halvings = vae.get("temperal_downsample")
    return 1 << len(halvings) if isinstance(halvings, (list, tuple)) else None


def _patch(vae: Mapping[str, Any], denoiser: Mapping[str, Any]) -> int:
    """Cells along each side of what a transformer takes as one token; a UNet takes single cells."""
    several = denoiser.get("all_patch_size")
    patch = max(several) if several else denoiser.get("patch_size") or 1
    patch = max(patch) if isinstance(patch, (list, tuple)) else patch
    channels = vae.get("latent_channels") or vae.get("z_dim") or denoiser.get("in_channels", 0)
    # Some are given 2×2 cells as one by their pipelines, and are told of patches of 1.
    packed = "patch_size" in denoiser and denoiser.get("in_channels", 0) >= 4 * channels
    return max(int(patch), 2 if packed else 1)
