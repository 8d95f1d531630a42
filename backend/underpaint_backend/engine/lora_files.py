"""Files of LoRAs, in the forms in which trainers write them. Nothing that a file says of itself is believed."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import (
    Flux2LoraLoaderMixin,
    FluxLoraLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
)
from safetensors.torch import load_file
from torch import Tensor

from ..models.headers import BadFile, Header, read_header
from ..models.recognise import UnknownFamily, recognise
from .device import is_out_of_memory
from .exceptions import BadFiles, ModelBroken, WrongLora
from .parts import Parts

log = logging.getLogger(__name__)

FAMILY_NAMES = {
    "stable_diffusion": "Stable Diffusion 1.5",
    "stable_diffusion_xl": "SDXL",
    "flux1": "FLUX.1",
    "flux2": "FLUX.2",
}
"""The families that LoRAs are made for, as artists know them."""


@dataclass(frozen=True)
class Change:
    """What is added to one layer: `down` [R, in] and `up` [out, R], or kernels; `scale` is what the trainer meant."""

    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True)
class Lora:
    """A LoRA on the device: its changes by part and layer. `made_for` names its family for the artist."""

    name: str
    made_for: str
    identity: Hashable
    changes: Mapping[str, Mapping[str, Change]]

    @property
    def bytes(self) -> int:
        """What it takes."""
        return sum(
            change.down.nbytes + change.up.nbytes for layers in self.changes.values() for change in layers.values()
        )


def read_lora(
    path: Path, key: Hashable, model: str, family: str, parts: Parts, dtypes: Mapping[str, torch.dtype]
) -> Lora:
    """The LoRA in a file, on the device, its changes in the type of number of each part.

    Raises `WrongLora`, `ModelBroken`, and `OSError` if the file cannot be read at all.
    """
    header, made_for = _checked(path, model, family)
    try:
        found = _changes(load_file(path), family, parts, _notes(header))
        changes = {
            part: {layer: _kept(change, parts.device.torch_device, dtypes[part]) for layer, change in layers.items()}
            for part, layers in found.items()
            if part in dtypes
        }
    except OSError:
        raise
    except BadFiles as error:
        raise ModelBroken(path.stem, str(error)) from error
    except Exception as error:  # whatever names that nobody expected make the converters raise
        if is_out_of_memory(error):
            raise
        log.info("the LoRA %s cannot be converted: %s", path.name, error)
        raise ModelBroken(path.stem, "it is a LoRA in a form that is not known") from error
    return Lora(path.stem, made_for, key, changes)


def _kept(change: Change, device: torch.device, dtype: torch.dtype) -> Change:
    """A change on the device. It is a copy: what is mapped from a file is lost when the file is written anew.

    Raises `BadFiles` if it is not finite: the model would be blamed for what comes of it.
    """
    down, up = (factor.to(device, dtype, copy=True) for factor in (change.down, change.up))
    finite = abs(change.scale) <= torch.finfo(dtype).max and down.isfinite().all() and up.isfinite().all()
    if not finite:
        raise BadFiles("it holds values that are no numbers")
    return Change(down, up, change.scale)


def _checked(path: Path, model: str, family: str) -> tuple[Header, str]:
    """The header of a LoRA, and what it was made for, in words.

    Raises `WrongLora` if that is not `family`, and `ModelBroken` if it is none.
    """
    try:
        header = read_header(path)
        what = recognise(header)
    except UnknownFamily as error:
        raise WrongLora(path.stem, error.seen.removeprefix("a LoRA for "), model) from error
    except BadFile as error:
        raise ModelBroken(path.stem, str(error)) from error
    if what.kind != "lora":
        raise ModelBroken(path.stem, f"it is no LoRA but {what.name}")
    if what.family != family or family not in CONVERTERS:
        own = FAMILY_NAMES.get(family, "")
        raise WrongLora(path.stem, what.name, model if own in model else f"{model} ({own})")
    return header, what.name


NOTES = "lora_adapter_metadata"
"""Where diffusers notes how a LoRA is to be scaled."""

CONVERTERS: Mapping[str, Any] = {
    "stable_diffusion": StableDiffusionLoraLoaderMixin,
    "stable_diffusion_xl": StableDiffusionXLLoraLoaderMixin,
    "flux1": FluxLoraLoaderMixin,
    "flux2": Flux2LoraLoaderMixin,
}
"""Who knows the names that trainers give to the layers of each family."""

_PART = r"(unet|transformer|text_encoder|text_encoder_2)\.(.+?)"
_FORMS = tuple(
    re.compile(_PART + form)
    for form in (
        r"\.lora_(A|B)(?:\.default(?:_\d+)?)?\.weight",
        r"[._](?:lora|lora_linear_layer)\.(down|up)\.weight(\.alpha)?",
        r"\.lora_(down|up)\.weight",
        r"\.(alpha)",
    )
)
_BLOCK = re.compile(r"\d{5}")
"""A number that no block of a network has. Converters count up to it."""
_LAYER = re.compile(r"(\^?)((?:\w|\\?\.)+)\$?", re.ASCII)
"""How a layer is named in notes, which count as a regular expression: with a dot that may be escaped, and an anchor
where it is the whole name. No other pattern is run, for some never end."""
_FLUX_ORIGINAL = re.compile(
    r".*?((?:double|single)_blocks\.\d+\..+|(?:img|txt|time|vector|guidance)_in\..+|final_layer\..+)"
)


def _changes(
    tensors: dict[str, Tensor], family: str, parts: Parts, notes: Mapping[str, Any]
) -> dict[str, dict[str, Change]]:
    """The changes of each part and layer, by diffusers' names."""
    halves: dict[tuple[str, str], dict[str, Any]] = {}
    for name, value in _converted(tensors, family, parts).items():
        part, layer, half = _parsed(name)
        halves.setdefault((part, layer), {})[half] = value
    found: dict[str, dict[str, Change]] = {}
    for (part, layer), named in halves.items():
        down, up = named["down"], named["up"]
        alpha = named["alpha"] if "alpha" in named else _noted_alpha(notes, part, layer)
        rank = down.shape[0]
        if not rank:
            raise BadFiles("a layer of it holds no numbers")
        divisor = math.sqrt(rank) if notes.get(f"{part}.use_rslora") else rank
        scale = 1.0 if alpha is None else float(alpha) / divisor
        found.setdefault(part, {})[layer] = Change(down, up, scale)
    return found


def _converted(tensors: dict[str, Tensor], family: str, parts: Parts) -> dict[str, Any]:
    """The tensors and alphas of a LoRA by names that begin with a part's.

    Raises `ValueError`, and whatever else the converters raise, for names that are none of a LoRA's.
    """
    if any(_BLOCK.search(name) for name in tensors):
        raise ValueError("a block has a number that no model has")
    options: dict[str, Any] = {}
    if family.startswith("flux"):
        tensors = dict(_flux_name(name, value) for name, value in tensors.items())
        options["return_alphas"] = True
    elif any(name.startswith("lora_unet_") for name in tensors):
        tensors = {name: value for name, value in tensors.items() if name.startswith("lora_")}
        options["unet_config"] = SimpleNamespace(**parts.config("unet"))
    if family == "flux2":
        del options["return_alphas"]
    found: Any = CONVERTERS[family].lora_state_dict(tensors, **options)
    weights, alphas = found if isinstance(found, tuple) else (found, None)
    return {**weights, **(alphas or {})}


def _flux_name(name: str, value: Tensor) -> tuple[str, Tensor]:
    """Names that mix the words of two trainers, as one of them alone would write them."""
    if (original := _FLUX_ORIGINAL.fullmatch(name)) is not None:
        words = original[1].replace(".lora_A.", ".lora_down.").replace(".lora_B.", ".lora_up.")
        layer, separator, half = words.partition(".lora_")
        if not separator:
            layer, separator, half = words.rpartition(".")
        return f"lora_unet_{layer.replace('.', '_')}{separator}{half}", value
    if name.startswith(("transformer_blocks.", "single_transformer_blocks.")):
        return f"transformer.{name}", value
    return name, value


def _parsed(name: str) -> tuple[str, str, str]:
    """The part, the layer, and "down", "up" or "alpha".

    Raises `ValueError` if the name is none of a LoRA's.
    """
    for form in _FORMS:
        if (found := form.fullmatch(name)) is not None:
            half = {"A": "down", "B": "up"}.get(found[3], found[3])
            if found.lastindex and found.lastindex > 3:
                half = "alpha"
            return found[1], _layer(found[1], found[2]), half
    raise ValueError(f"{name} is no part of a LoRA")


def _layer(part: str, name: str) -> str:
    """A layer's name in its network; of attention, it was formerly another."""
    name = name.replace(".processor.", ".")
    if part.startswith("text_encoder"):
        name = re.sub(r"\.to_([qkv])$", r".\1_proj", name)
        return re.sub(r"\.to_out$", ".out_proj", name)
    return re.sub(r"\.to_out$", ".to_out.0", name)


def _notes(header: Header) -> Mapping[str, Any]:
    """What diffusers noted in a file on how the LoRA is to be scaled.

    Raises `ValueError` if it is nothing that it would write.
    """
    notes: Any = json.loads(header.metadata.get(NOTES, "{}"))
    if not isinstance(notes, dict):
        raise ValueError("the notes are no object")
    return notes


def _noted_alpha(notes: Mapping[str, Any], part: str, layer: str) -> float | None:
    """What diffusers noted for a layer; None if it noted nothing.

    Raises `ValueError` for what it would not write.
    """
    for name, alpha in (notes.get(f"{part}.alpha_pattern") or {}).items():
        if _names(name, layer):
            return float(alpha)
    alpha = notes.get(f"{part}.lora_alpha")
    return None if alpha is None else float(alpha)


def _names(noted: str, layer: str) -> bool:
    """Whether a name in the notes is that of a layer, or the end of it.

    Raises `ValueError` if it is no name.
    """
    found = _LAYER.fullmatch(noted)
    if found is None:
        raise ValueError(f"{noted} is no name of a layer")
    name = found[2].replace("\\", "")
    return layer == name if found[1] else f".{layer}".endswith(f".{name}")
