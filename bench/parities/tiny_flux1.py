"""Tiny models of FLUX.1 with random weights: the real configurations with widths and depths cut, nothing else."""

from __future__ import annotations

import atexit
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.pipelines.flux import ReduxImageEncoder
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.models.catalog import DESCRIPTION, Entry
from underpaint_protocol.messages import Model

VARIANTS = ("schnell", "dev", "fill", "redux", "kontext")
PIPELINES = {"fill": "FluxFillPipeline", "kontext": "FluxKontextPipeline"}
WIDTH = 32
"""Of T5's, CLIP's and SigLIP's embeddings, and of the transformer: 4096, 768, 1152 and 3072 in the real ones."""

START, END = "<|startoftext|>", "<|endoftext|>"

TRANSFORMER = {
    "in_channels": 64,
    "out_channels": 64,
    "patch_size": 1,
    "num_layers": 1,  # 19
    "num_single_layers": 2,  # 38
    "attention_head_dim": 16,  # 128
    "num_attention_heads": 2,  # 24
    "axes_dims_rope": (4, 6, 6),  # (16, 56, 56)
    "joint_attention_dim": WIDTH,
    "pooled_projection_dim": WIDTH,
}

VAE = {
    "block_out_channels": (8, 8, 16, 16),  # (128, 256, 512, 512)
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,  # 2
    "norm_num_groups": 4,  # 32
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": True,
    "sample_size": 1024,
    "force_upcast": True,
}

CLIP = {
    "hidden_size": WIDTH,
    "projection_dim": WIDTH,
    "intermediate_size": 2 * WIDTH,  # 3072
    "num_hidden_layers": 2,  # 12
    "num_attention_heads": 4,  # 12
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    # As in the published configuration, where they are not those of the tokenizer: CLIP looks for the highest token.
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}

T5 = {
    "d_model": WIDTH,
    "d_kv": 8,  # 64
    "d_ff": 2 * WIDTH,  # 10240
    "num_heads": 4,  # 64
    "num_layers": 2,  # 24
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "tie_word_embeddings": False,
}

SIGLIP = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,  # 4304
    "num_hidden_layers": 2,  # 27
    "num_attention_heads": 4,  # 16
    "image_size": 28,  # 384
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
}

SCHEDULER = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
}


def build_tiny_flux1(folder: Path, variant: str) -> Entry:
    """Write a model of one of `VARIANTS` into `folder`, in diffusers' layout."""
    torch.manual_seed(1 + VARIANTS.index(variant))
    shifts = {"use_dynamic_shifting": variant != "schnell", "shift": 1.0 if variant == "schnell" else 3.0}
    changes: dict[str, Any] = {"guidance_embeds": variant != "schnell"}
    if variant == "fill":
        changes["in_channels"] = 384
    transformer = FluxTransformer2DModel(**TRANSFORMER | changes)
    _sharpen(transformer)
    parts = {
        "scheduler": FlowMatchEulerDiscreteScheduler(**SCHEDULER, **shifts),
        "transformer": transformer,
        "vae": AutoencoderKL(**VAE),
        "text_encoder": CLIPTextModel(CLIPTextConfig(vocab_size=len(_words()), **CLIP)),
        "text_encoder_2": T5EncoderModel(T5Config(vocab_size=len(_pieces()), **T5)),
        "tokenizer": _clip_tokenizer(),
        "tokenizer_2": _t5_tokenizer(),
    }
    if variant == "redux":
        parts |= {
            "image_encoder": SiglipVisionModel(SiglipVisionConfig(**SIGLIP)),
            "image_embedder": ReduxImageEncoder(redux_dim=WIDTH, txt_in_features=WIDTH),
            "feature_extractor": SiglipImageProcessorPil(size={"height": 28, "width": 28}),
        }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": PIPELINES.get(variant, "FluxPipeline")}))
    model = _description(variant)
    (folder / DESCRIPTION).write_text(json.dumps(model.to_wire()))
    return Entry(model, folder)


def _sharpen(transformer: FluxTransformer2DModel) -> None:
    """Make it heed what it is told. With weights as drawn, attention is so even that a lost reference hardly shows."""
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "blocks" in name:
                parameter.mul_(2)


@cache
def tiny_flux1(variant: str) -> LoadedModel:
    """The tiny model of one of `VARIANTS`, loaded as every model is."""
    entry = build_tiny_flux1(_folder() / variant, variant)
    return _library().load(entry, lambda fraction: None, Event())


@cache
def _library() -> Library:
    return Library(open_device("cpu"))


@cache
def _folder() -> Path:
    """Where the models lie, as long as this program runs."""
    folder = TemporaryDirectory(prefix="tiny-flux1-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _description(variant: str) -> Model:
    return Model(
        id=f"tiny-flux1-{variant}",
        name=f"Tiny FLUX.1 {variant}",
        family="flux1",
        tasks=("inpaint",) if variant == "fill" else ("inpaint", "text_to_image"),
        schedulers=("euler",),
        native_area=64 * 64,
        size_multiple=16,
        default_steps=4,
        default_guidance=30.0 if variant == "fill" else 3.5,
        default_scheduler="euler",
        max_references=4 if variant in ("redux", "kontext") else 0,
    )


def _words() -> dict[str, int]:
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), START, END]
    return {token: index for index, token in enumerate(tokens)}


def _pieces() -> list[tuple[str, float]]:
    letters = [(chr(code), -3.0) for code in range(33, 127)]
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters]


def _clip_tokenizer() -> CLIPTokenizer:
    special = {"unk_token": END, "bos_token": START, "eos_token": END, "pad_token": END}
    return CLIPTokenizer(vocab=_words(), merges=[], model_max_length=77, **special)


def _t5_tokenizer() -> T5Tokenizer:
    return T5Tokenizer(vocab=_pieces(), extra_ids=0, model_max_length=512)
