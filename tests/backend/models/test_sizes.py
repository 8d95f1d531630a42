"""Size multiples, told from the configurations that diffusers' own classes write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file
from underpaint_backend.models.adding import folder_table, told_by_parts
from underpaint_backend.models.sizes import UNTOLD, cell_side, size_multiple


def config_of(cls: Any) -> dict[str, Any]:
    """The configuration of a class as its authors have it."""
    with torch.device("meta"):
        return dict(cls().config)


@pytest.mark.parametrize(
    ("vae", "denoiser", "cell", "multiple"),
    [
        (diffusers.AutoencoderKLQwenImage, diffusers.QwenImageTransformer2DModel, 8, 16),
        (diffusers.AutoencoderKLWan, diffusers.WanTransformer3DModel, 8, 16),
    ],
)
def test_known_kinds_tell(vae: Any, denoiser: Any, cell: int, multiple: int) -> None:
    """Transformers take tokens of some cells: by their own patches, or because their pipelines pack the cells."""
    assert cell_side(config_of(vae)) == cell
    assert size_multiple(config_of(vae), config_of(denoiser)) == multiple


FLUX_VAE = {"block_out_channels": [128, 256, 512, 512], "latent_channels": 16}


@pytest.mark.parametrize(
    ("vae", "denoiser", "multiple"),
    [
        # As published: FLUX.1 and Fill, FLUX.2, Stable Diffusion 1.5 and its inpainting UNet, SD3, Z-Image, Sana.
        (FLUX_VAE, {"patch_size": 1, "in_channels": 64}, 16),
        (FLUX_VAE, {"patch_size": 1, "in_channels": 384}, 16),
        ({**FLUX_VAE, "latent_channels": 32, "patch_size": [2, 2]}, {"patch_size": 1, "in_channels": 128}, 16),
        ({**FLUX_VAE, "latent_channels": 4}, {"in_channels": 4, "cross_attention_dim": 768}, 8),
        ({**FLUX_VAE, "latent_channels": 4}, {"in_channels": 9, "cross_attention_dim": 768}, 8),
        (FLUX_VAE, {"patch_size": 2, "in_channels": 16}, 16),
        (FLUX_VAE, {"all_patch_size": [2], "in_channels": 16}, 16),
        (
            {"encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024], "latent_channels": 32},
            {"patch_size": 1, "in_channels": 32},
            32,
        ),
        ({"strange": True}, {"patch_size": 1, "in_channels": 16}, UNTOLD),
        (None, {"in_channels": 3}, 8),
    ],
)
def test_published_models_tell(vae: dict[str, Any] | None, denoiser: dict[str, Any], multiple: int) -> None:
    """A kind of autoencoder that is not known gets the coarsest, which suits all."""
    assert size_multiple(vae, denoiser) == multiple


def test_an_added_pipeline_has_the_multiple_of_its_parts(tmp_path: Path) -> None:
    """Sana's autoencoder has cells of 32 px; a family of ours knows its own multiple, and needs no configurations."""
    configs = {
        "vae": {"encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024], "latent_channels": 32},
        "transformer": {"patch_size": 1, "in_channels": 32},
    }
    index = {"_class_name": "SanaPipeline", "vae": ["diffusers", "AutoencoderDC"], "scheduler": ["diffusers", "X"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    for part, config in configs.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
        save_file({"a": torch.zeros(1)}, tmp_path / part / "diffusion_pytorch_model.safetensors")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")

    assert folder_table("sana", tmp_path)["size_multiple"] == 32
    classic = {"family": "classic", "size_multiple": 16}
    assert told_by_parts(classic, configs.get)["size_multiple"] == 32
    assert told_by_parts(classic, {}.get) == classic
    assert told_by_parts({**classic, "family": "flux2"}, configs.get)["size_multiple"] == 16
