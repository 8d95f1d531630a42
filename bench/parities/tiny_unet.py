"""Tiny UNet models with random weights: Stable Diffusion, SDXL and IP-Adapters as they are released, but for size.

What the released configurations set is set here, too; only widths, depths and the vocabulary are cut down.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from underpaint_backend.engine.schedulers import NAMES
from underpaint_backend.models.catalog import DESCRIPTION, Entry
from underpaint_protocol.messages import Model

START, END = "<|startoftext|>", "<|endoftext|>"
TOKENS = 24
WIDTH = 32
"""Of a text embedding; SDXL's two encoders have half of it each."""
SEEN = 24
"""Width of what the tiny image encoder makes of a picture before, and after, its projection."""
SEEN_SIDE = 32


def build_tiny(folder: Path, channels: int, **scheduler: Any) -> Entry:
    """Write a Stable Diffusion 1.5 into `folder` whose UNet has `channels` input channels, 4 or 9.

    Sides of pictures are multiples of 8 px.
    """
    torch.manual_seed(channels)
    pipeline = StableDiffusionInpaintPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(clip_text(WIDTH)),
        tokenizer=tokenizer(),
        unet=unet(channels),
        scheduler=diffusion_scheduler(**scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return described(folder, "stable_diffusion", name=f"Tiny with {channels} channels")


def build_tiny_xl(folder: Path, channels: int, **scheduler: Any) -> Entry:
    """Write an SDXL into `folder` whose UNet has `channels` input channels, 4 or 9.

    Sides of pictures are multiples of 8 px.
    """
    torch.manual_seed(100 + channels)
    pipeline = StableDiffusionXLInpaintPipeline(
        vae=vae(scaling_factor=0.13025, force_upcast=True),
        text_encoder=CLIPTextModel(clip_text(WIDTH // 2)),
        text_encoder_2=CLIPTextModelWithProjection(clip_text(WIDTH // 2, hidden_act="gelu", projection_dim=WIDTH)),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(pad="!"),
        unet=unet_xl(channels),
        scheduler=diffusion_scheduler(timestep_spacing="leading", **scheduler),
    )
    pipeline.save_pretrained(folder)
    return described(folder, "stable_diffusion_xl", name=f"Tiny XL with {channels} channels")


def add_ip_adapter(entry: Entry, plus: bool = False) -> Entry:
    """The model of `entry` with an IP-Adapter in its folder, for 4 tokens from one vector.

    With `plus`, for 8 tokens from all patches of a picture.
    """
    torch.manual_seed(7)
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=SEEN,
            intermediate_size=48,
            projection_dim=SEEN,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=SEEN_SIDE,
            patch_size=8,
        )
    )
    encoder.save_pretrained(entry.folder / "image_encoder")
    (entry.folder / "ip_adapter").mkdir()
    model = UNet2DConditionModel.from_pretrained(entry.folder, subfolder="unet", local_files_only=True)
    weights = {f"image_proj.{name}": weight for name, weight in (_resampler() if plus else _projection()).items()}
    weights |= {f"ip_adapter.{name}": weight for name, weight in _attention(model).items()}
    save_file(weights, entry.folder / "ip_adapter" / "ip-adapter.safetensors")
    return entry


def described(folder: Path, family: str, **changes: Any) -> Entry:
    """The entry of the model in `folder`, whose description is written there."""
    values: dict[str, Any] = {
        "id": folder.name,
        "name": folder.name,
        "family": family,
        "tasks": ("inpaint", "text_to_image"),
        "schedulers": NAMES,
        "native_area": 64 * 64,
        "size_multiple": 8,
        "default_steps": 4,
        "default_guidance": 3.0,
        "default_scheduler": "ddim",
        **changes,
    }
    model = Model(**values)
    (folder / DESCRIPTION).write_text(json.dumps(model.to_wire()))
    return Entry(model, folder)


def vae(**changes: Any) -> AutoencoderKL:
    """The VAE of a Stable Diffusion 1.5."""
    return AutoencoderKL(
        **{
            "block_out_channels": (8, 16, 16),
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "latent_channels": 4,
            "norm_num_groups": 4,
            **changes,
        }
    )


def unet(channels: int, **changes: Any) -> UNet2DConditionModel:
    """The UNet of a Stable Diffusion 1.5."""
    return UNet2DConditionModel(
        **{
            "sample_size": 16,
            "in_channels": channels,
            "out_channels": 4,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": WIDTH,
            "attention_head_dim": 4,
            "norm_num_groups": 8,
            **changes,
        }
    )


def unet_xl(channels: int) -> UNet2DConditionModel:
    """The UNet of an SDXL."""
    return unet(
        channels,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )


def clip_text(width: int, **changes: Any) -> CLIPTextConfig:
    """What CLIP's text encoder is with embeddings of this width."""
    return CLIPTextConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=len(_vocabulary()) - 2,
        eos_token_id=len(_vocabulary()) - 1,
        **changes,
    )


def _vocabulary() -> dict[str, int]:
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), START, END]
    return {token: index for index, token in enumerate(tokens)}


def tokenizer(pad: str = END) -> CLIPTokenizer:
    """CLIP's tokenizer with a vocabulary of single letters."""
    return CLIPTokenizer(
        vocab=_vocabulary(),
        merges=[],
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=pad,
        model_max_length=TOKENS,
    )


def diffusion_scheduler(**changes: Any) -> DDIMScheduler:
    """Stable Diffusion's own noise levels."""
    return DDIMScheduler(
        **{
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            **changes,
        }
    )


def _projection() -> dict[str, Tensor]:
    """From the image encoder's one vector to 4 tokens."""
    return {
        "proj.weight": _random(4 * WIDTH, SEEN),
        "proj.bias": _random(4 * WIDTH),
        "norm.weight": torch.ones(WIDTH),
        "norm.bias": _random(WIDTH),
    }


def _resampler(queries: int = 8, width: int = 64, depth: int = 4) -> dict[str, Tensor]:
    """From what the image encoder sees in all patches to `queries` tokens."""
    weights = {
        "latents": torch.randn(1, queries, width),
        "proj_in.weight": _random(width, SEEN),
        "proj_in.bias": _random(width),
        "proj_out.weight": _random(WIDTH, width),
        "proj_out.bias": _random(WIDTH),
        "norm_out.weight": torch.ones(WIDTH),
        "norm_out.bias": _random(WIDTH),
    }
    for layer in range(depth):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            weights[f"layers.{layer}.{norm}.weight"] = torch.ones(width)
            weights[f"layers.{layer}.{norm}.bias"] = _random(width)
        weights[f"layers.{layer}.0.to_q.weight"] = _random(width, width)
        weights[f"layers.{layer}.0.to_kv.weight"] = _random(2 * width, width)
        weights[f"layers.{layer}.0.to_out.weight"] = _random(width, width)
        weights[f"layers.{layer}.1.1.weight"] = _random(4 * width, width)
        weights[f"layers.{layer}.1.3.weight"] = _random(width, 4 * width)
    return weights


def _attention(model: UNet2DConditionModel) -> dict[str, Tensor]:
    """Keys and values of image tokens for each cross-attention, numbered as they were released: 1, 3, 5, ..."""
    weights = {}
    crossing = [name for name in model.attn_processors if not name.endswith("attn1.processor")]
    for number, name in enumerate(crossing):
        width = model.get_submodule(name.removesuffix(".processor")).to_k.out_features
        weights[f"{2 * number + 1}.to_k_ip.weight"] = _random(width, WIDTH)
        weights[f"{2 * number + 1}.to_v_ip.weight"] = _random(width, WIDTH)
    return weights


def _random(*shape: int) -> Tensor:
    numbers: Tensor = torch.randn(*shape) * shape[-1] ** -0.5
    return numbers
