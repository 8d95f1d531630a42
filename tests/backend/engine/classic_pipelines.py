"""Tiny pipelines of diffusers that nothing else here knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import diffusers
import numpy as np
import pytest
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray
from parities.tiny_unet import clip_text, diffusion_scheduler, tokenizer, unet, vae
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, Source, paint
from underpaint_backend.models.catalog import Entry
from underpaint_backend.models.schedulers import OWN

from tests.backend.engine.tiny import described

FILTERS = [
    # Chroma is built of a class that diffusers itself is about to move.
    pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated:FutureWarning"),
    # One canvas for a batch is what we mean.
    pytest.mark.filterwarnings("ignore:You have passed 2 text prompts:FutureWarning"),
]
"""Warnings of diffusers that these pipelines bring with them."""

SIZE = 64
PAINTING = Painting((SIZE, SIZE), "a dog", "a cat", 3.0, OWN, 3, 1.0, [1, 2])


def canvas() -> Source:
    """A picture of noise with a selection."""
    coverage = np.zeros((SIZE, SIZE), np.float32)
    coverage[16:48, 16:48] = 1
    return Source(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8), coverage)


def t5() -> dict[str, Any]:
    """T5's encoder and a tokenizer of single letters."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(97, 123))]
    config = T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    made = T5Tokenizer(vocab=[(piece, 0.0) for piece in pieces], extra_ids=0)
    return {"text_encoder": T5EncoderModel(config), "tokenizer": made}


def wide_vae() -> AutoencoderKL:
    """A VAE of 16 channels and 8 px, as those of flow models."""
    return vae(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def pixart() -> Any:
    """PixArt Σ: a transformer with noise levels of diffusion, which also says how sure it is."""
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=16,
        sample_size=16,
        patch_size=2,
        caption_channels=32,
        norm_num_groups=1,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler()
    return diffusers.PixArtSigmaPipeline(vae=vae(), transformer=transformer, scheduler=scheduler, **t5())


def chroma() -> Any:
    """Chroma: a flow transformer that keeps its latents as tokens."""
    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    scheduler = FlowMatchEulerDiscreteScheduler()
    return diffusers.ChromaPipeline(vae=wide_vae(), transformer=transformer, scheduler=scheduler, **t5())


def stable_diffusion_3() -> Any:
    """Stable Diffusion 3 without its T5."""
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=16,
        pos_embed_max_size=16,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=wide_vae(),
        text_encoder=CLIPTextModelWithProjection(clip_text(16, projection_dim=32)),
        tokenizer=tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_text(16, projection_dim=32)),
        tokenizer_2=tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )


def instruct_pix2pix() -> Any:
    """InstructPix2Pix: a UNet that is shown a whole picture to change."""
    return diffusers.StableDiffusionInstructPix2PixPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(clip_text(32)),
        tokenizer=tokenizer(),
        unet=unet(8),
        scheduler=diffusion_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def latent_consistency() -> Any:
    """A latent consistency model, which is told of its guidance."""
    return diffusers.LatentConsistencyModelPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(clip_text(32)),
        tokenizer=tokenizer(),
        unet=unet(4, time_cond_proj_dim=16),
        scheduler=diffusers.LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


KINDS: dict[str, Callable[[], Any]] = {
    made.__name__: made for made in (pixart, chroma, stable_diffusion_3, instruct_pix2pix, latent_consistency)
}


def write(folder: Path, pipeline: Any) -> Entry:
    """The files of a pipeline."""
    pipeline.save_pretrained(folder)
    return described(folder, "classic", schedulers=(OWN, "euler"), default_scheduler=OWN, size_multiple=16)


def opened(entry: Entry) -> LoadedModel:
    """The model of an entry."""
    return Library(open_device("cpu")).load(entry, lambda fraction: None, Event())


def painted(model: LoadedModel, painting: Painting = PAINTING, cancelled: Event | None = None) -> NDArray[np.uint8]:
    """The pictures of a painting."""
    return paint(model, painting, Observer(lambda phase: None, lambda step: None), cancelled or Event())
