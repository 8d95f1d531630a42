"""Tiny Stable Diffusion models with random weights, built from configurations: real ones in everything but size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from underpaint_backend.models.catalog import DESCRIPTION, SCHEDULERS, Entry
from underpaint_protocol.messages import Model

START, END = "<|startoftext|>", "<|endoftext|>"


def build_tiny(folder: Path, channels: int, **scheduler: Any) -> Entry:
    """Write a model into `folder` whose UNet has `channels` input channels, 4 or 9. Sides are multiples of 8 px."""
    torch.manual_seed(channels)
    pipeline = StableDiffusionInpaintPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(),
        unet=_unet(channels),
        scheduler=_scheduler(**scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    model = Model(
        id=folder.name,
        name=f"Tiny with {channels} channels",
        family="stable_diffusion",
        tasks=("inpaint", "text_to_image"),
        schedulers=SCHEDULERS,
        native_area=64 * 64,
        size_multiple=8,
        default_steps=4,
        default_guidance=3.0,
        default_scheduler="ddim",
    )
    (folder / DESCRIPTION).write_text(json.dumps(model.to_wire()))
    return Entry(model, folder)


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
    )


def _unet(channels: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def _text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(_vocabulary()),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=24,
            bos_token_id=len(_vocabulary()) - 2,
            eos_token_id=len(_vocabulary()) - 1,
        )
    )


def _vocabulary() -> dict[str, int]:
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), START, END]
    return {token: index for index, token in enumerate(tokens)}


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(
        vocab=_vocabulary(),
        merges=[],
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=24,
    )


def _scheduler(**changes: Any) -> DDIMScheduler:
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
