"""Tiny models of FLUX.2 with random weights: the real configurations with widths, depths and vocabularies cut.

The language models keep a layer more than is read of them, and tokenizers know single bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from underpaint_backend.models.catalog import DESCRIPTION, Entry
from underpaint_protocol.messages import Model

VARIANTS = ("klein", "klein base", "dev")
WIDTH = 16
"""Of the language models: 2560 and 4096 in Qwen3 4B and 8B, 5120 in Mistral."""

TRANSFORMER = {
    "patch_size": 1,
    "in_channels": 128,
    "num_layers": 1,  # 5, 8 and 8 in klein 4B, 9B and dev
    "num_single_layers": 2,  # 20, 24, 48
    "attention_head_dim": 16,  # 128
    "num_attention_heads": 2,  # 24, 32, 48
    "joint_attention_dim": 3 * WIDTH,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "axes_dims_rope": (4, 4, 4, 4),  # 32 each
    "rope_theta": 2000,
    "eps": 1e-6,
}

VAE = {
    "block_out_channels": (8, 8, 16, 16),  # (128, 256, 512, 512)
    "layers_per_block": 1,  # 2
    "norm_num_groups": 4,  # 32
    "latent_channels": 32,
    "batch_norm_eps": 1e-4,
    "patch_size": (2, 2),
    "use_quant_conv": True,
    "use_post_quant_conv": True,
}

LANGUAGE = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}

EYES = {
    "model_type": "pixtral",
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 8,
    "image_size": 28,
    "patch_size": 14,
}

SCHEDULER = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}

QWEN_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""

MISTRAL_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{%- for block in message.content %}
{%- if message.role == 'system' %}{{ '[SYSTEM_PROMPT]' + block.text + '[/SYSTEM_PROMPT]' }}
{%- else %}{{ '[INST]' + block.text + '[/INST]' }}{% endif %}{% endfor %}{% endfor %}"""


def build_tiny_flux2(folder: Path, variant: str) -> tuple[Entry, Any]:
    """Write a model of one of `VARIANTS` into `folder`. Also gives diffusers' own pipeline, with the same weights."""
    torch.manual_seed(1 + VARIANTS.index(variant))
    dev = variant == "dev"
    parts = {
        "scheduler": FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        "transformer": _transformer(guidance_embeds=dev),
        "vae": _vae(),
        "text_encoder": (_mistral() if dev else _qwen()).eval(),
        "tokenizer": _mistral_tokenizer() if dev else _qwen_tokenizer(),
    }
    pipeline = Flux2Pipeline(**parts) if dev else Flux2KleinPipeline(**parts, is_distilled=variant == "klein")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    model = Model(
        id=folder.name,
        name=f"Tiny FLUX.2 {variant}",
        family="flux2",
        tasks=("inpaint", "text_to_image"),
        schedulers=("euler", "heun", "dpm++2m", "unipc"),
        native_area=64 * 64,
        size_multiple=16,
        default_steps=4 if variant == "klein" else 50,
        default_guidance=1.0 if variant == "klein" else 4.0,
        default_scheduler="euler",
        max_references=6 if dev else 4,
    )
    (folder / DESCRIPTION).write_text(json.dumps(model.to_wire()))
    return Entry(model, folder), pipeline


@torch.no_grad()
def _transformer(guidance_embeds: bool) -> Flux2Transformer2DModel:
    """One that looks at its prompt and its references. As it is made, it hardly does, and mistakes there go unseen."""
    transformer = Flux2Transformer2DModel(**TRANSFORMER, guidance_embeds=guidance_embeds).eval()
    for name, weight in transformer.named_parameters():
        weight.mul_(3 if "norm_" in name and weight.ndim == 1 else 2)
    return transformer


def _vae() -> AutoencoderKLFlux2:
    """One whose patches have met a mean and a variance: without them nobody would notice if they were left out."""
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKLFlux2(**VAE, **blocks).eval()
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.2, 2)
    return vae


def _qwen() -> Qwen3ForCausalLM:
    config = Qwen3Config(**LANGUAGE, vocab_size=300, num_hidden_layers=28, rope_theta=1e6, tie_word_embeddings=True)
    return Qwen3ForCausalLM(config)


def _mistral() -> Mistral3ForConditionalGeneration:
    text = {**LANGUAGE, "model_type": "mistral", "vocab_size": 300, "num_hidden_layers": 31, "rope_theta": 1e9}
    return Mistral3ForConditionalGeneration(Mistral3Config(vision_config=EYES, text_config=text))


def _bytes() -> dict[str, int]:
    return {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def _qwen_tokenizer() -> Qwen2Tokenizer:
    marks = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    end = "<|endoftext|>"
    tokenizer = Qwen2Tokenizer(
        vocab={**_bytes(), end: 256}, merges=[], unk_token=end, eos_token=end, pad_token=end, extra_special_tokens=marks
    )
    tokenizer.chat_template = QWEN_TEMPLATE
    return tokenizer


def _mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Filled up on the left, as Mistral's is."""
    inner = Tokenizer(models.BPE(vocab=_bytes(), merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens=["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]"],
    )
    tokenizer.chat_template = MISTRAL_TEMPLATE
    return tokenizer
