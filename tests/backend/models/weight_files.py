"""Checkpoints and LoRAs as artists find them, for models of their real sizes, without the numbers."""

from __future__ import annotations

import functools
import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import torch
import transformers
from torch import Tensor
from underpaint_backend.models.recognise import PACKS

from tests.backend.models import original


@functools.cache
def weights_of(variant: str, part: str) -> dict[str, Tensor]:
    """The weights of a part at its real size, without the numbers."""
    config = json.loads((PACKS / variant / part / "config.json").read_text())
    with accelerate.init_empty_weights():
        if "architectures" in config:
            cls = getattr(transformers, config["architectures"][0])
            found: dict[str, Tensor] = cls(cls.config_class(**config)).state_dict()
        else:
            found = getattr(diffusers, config["_class_name"]).from_config(config).state_dict()
    return found


def config_of(variant: str, part: str) -> dict[str, Any]:
    """The configuration of a part."""
    found: dict[str, Any] = json.loads((PACKS / variant / part / "config.json").read_text())
    return found


def checkpoint_of(variant: str) -> dict[str, Tensor]:
    """A file of this variant, as artists find it."""
    if variant.startswith("flux1"):
        return original.flux1(weights_of(variant, "transformer"))
    if variant.startswith("flux2"):
        return original.flux2(weights_of(variant, "transformer"))
    written = original.unet(weights_of(variant, "unet"), config_of(variant, "unet"))
    written |= original.vae(weights_of(variant, "vae"), config_of(variant, "vae"))
    if variant.startswith("sd1"):
        return written | original.clip(weights_of(variant, "text_encoder"))
    written |= original.clip(weights_of(variant, "text_encoder"), "conditioner.embedders.0.transformer.")
    return written | original.open_clip(weights_of(variant, "text_encoder_2"))


Shapes = dict[str, tuple[int, ...]]


def lora(layers: Mapping[str, tuple[int, int]], down: str, up: str, prefix: str = "", flat: bool = False) -> Shapes:
    """A LoRA of rank 4 for layers of these shapes (what they give, what they take)."""
    written: Shapes = {}
    for name, (gives, takes) in layers.items():
        base = prefix + (name.replace(".", "_") if flat else name)
        written |= {f"{base}.{down}.weight": (4, takes), f"{base}.{up}.weight": (gives, 4)}
        if flat:
            written[f"{base}.alpha"] = ()
    return written


def peft(prefix: str) -> Callable[[Mapping[str, tuple[int, int]]], Shapes]:
    """Names as peft writes them."""
    return lambda layers: lora(layers, "lora_A", "lora_B", prefix)


def kohya(prefix: str) -> Callable[[Mapping[str, tuple[int, int]]], Shapes]:
    """Names as kohya's trainer writes them."""
    return lambda layers: lora(layers, "lora_down", "lora_up", prefix, flat=True)


def layers_of(
    variant: str, pattern: str, keep: Callable[[str], bool] = lambda name: True
) -> dict[str, tuple[int, int]]:
    """The linear layers of a denoiser whose names hold `pattern`, with their real shapes."""
    part = "transformer" if "flux" in variant else "unet"
    return {
        name.removesuffix(".weight"): (value.shape[0], value.shape[1])
        for name, value in weights_of(variant, part).items()
        if pattern in name and value.ndim == 2 and name.endswith(".weight") and keep(name)
    }


def originally(variant: str, pattern: str) -> dict[str, tuple[int, int]]:
    """The same in the original layout."""
    return {
        name.removesuffix(".weight"): (value.shape[0], value.shape[1])
        for name, value in checkpoint_of(variant).items()
        if pattern in name and value.ndim == 2 and name.endswith(".weight")
    }


def kohya_lora(variant: str, words: str = "attn2.to_k") -> dict[str, tuple[int, ...]]:
    """A LoRA in kohya's names."""
    return kohya("lora_unet_")(layers_of(variant, words))


def write(path: Path, tensors: Mapping[str, Any]) -> Path:
    """A file with tensors of these shapes, in half precision, whose zeros take no room on the disk."""
    header, at = {}, 0
    for name, value in tensors.items():
        shape = tuple(getattr(value, "shape", value))
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + at)
    return path
