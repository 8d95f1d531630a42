"""LoRAs (Hu et al. 2021, arXiv:2106.09685): small changes of a model's layers, laid over them for one job.

A layer W that is changed says W x + weight · scale · B A x. A and B are never merged into W: the model is the same to
the bit once they are gone, packed weights stay packed, and a network that several models share is changed for one job
alone.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias
from weakref import WeakSet

import torch
from diffusers.loaders.lora_pipeline import (
    Flux2LoraLoaderMixin,
    FluxLoraLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
)
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from underpaint_protocol.errors import describe

from ..models.headers import BadFile, Header, read_header
from ..models.recognise import UnknownFamily, recognise
from .exceptions import EngineError, ModelBroken
from .parts import Parts

log = logging.getLogger(__name__)

LORA_BYTES = 1 << 30
"""What LoRAs take on the device that are kept for the next job. One for SDXL has 50-400 MB."""
LORAS = 16
"""How many are kept; a job may have as many."""

FAMILY_NAMES = {
    "stable_diffusion": "Stable Diffusion 1.5",
    "stable_diffusion_xl": "SDXL",
    "flux1": "FLUX.1",
    "flux2": "FLUX.2",
}
"""The families that LoRAs are made for, as artists know them."""

Choice: TypeAlias = tuple[Path, float]
"""The file of a LoRA and how far it is followed: 0 is not at all."""


class WrongLora(EngineError):
    """A LoRA was made for something else than the model."""

    def __init__(self, lora: str, made_for: str, model: str) -> None:
        super().__init__(describe("wrong_lora", lora=lora, detail=made_for, model=model))


class UnknownLora(EngineError):
    """There is no LoRA of this name."""

    def __init__(self, lora: str) -> None:
        super().__init__(describe("unknown_lora", detail=lora))


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


class LoraRack:
    """LoRAs in memory, the ones used least recently out. Those of the job at hand stay, however large they are."""

    def __init__(self, most_bytes: int = LORA_BYTES, most: int = LORAS) -> None:
        self.most_bytes = most_bytes
        self.most = most
        self._held: OrderedDict[Hashable, Lora] = OrderedDict()
        self._worn: set[Hashable] = set()

    @property
    def bytes(self) -> int:
        """What they take."""
        return sum(lora.bytes for lora in self._held.values())

    def let_go(self) -> bool:
        """Forget all that no job wears now. Whether there were any."""
        idle = [key for key in self._held if key not in self._worn]
        for key in idle:
            log.info("the LoRA %s makes room", self._held.pop(key).name)
        return bool(idle)

    @contextmanager
    def worn(self, model: str, family: str, parts: Parts, choices: Sequence[Choice]) -> Iterator[Worn]:
        """Within this context the model called `model`, of `family`, wears the LoRAs, once its networks are dressed.

        `parts.marks` say so for as long. A weight of 0 is the same as not to choose the LoRA.

        Raises `WrongLora` if one was made for another family, and `ModelBroken` if its file is damaged.
        """
        chosen = [(path, weight) for path, weight in choices if weight]
        loras = [(self._fetch(path, model, family, parts), weight) for path, weight in chosen]
        self._worn = {lora.identity for lora, _ in loras}
        self._make_room()
        worn, before = Worn(model, loras), dict(parts.marks)
        parts.marks.update(worn.marks)
        try:
            yield worn
        finally:
            self._worn = set()
            worn.take_off()
            parts.marks.clear()
            parts.marks.update(before)

    def _fetch(self, path: Path, model: str, family: str, parts: Parts) -> Lora:
        dtypes = {name: parts.key(name).dtype for name in parts.names}
        try:
            status = path.stat()
            key = (str(path.resolve()), status.st_size, status.st_mtime_ns, family, tuple(dtypes.items()))
            if key not in self._held:
                self._held[key] = _read(path, key, model, family, parts, dtypes)
        except OSError as error:
            raise ModelBroken(path.stem, f"it cannot be read: {error.strerror}") from error
        self._held.move_to_end(key)
        return self._held[key]

    def _make_room(self) -> None:
        for key in list(self._held):
            if len(self._held) <= self.most and self.bytes <= self.most_bytes:
                return
            if key not in self._worn:
                log.info("the LoRA %s makes room", self._held.pop(key).name)


class Worn:
    """The LoRAs of one job. Networks may be read anew in the middle of it, so each is dressed when it is fetched."""

    def __init__(self, model: str, loras: Sequence[tuple[Lora, float]]) -> None:
        self.model = model
        self.loras = loras
        self._dressed: WeakSet[nn.Module] = WeakSet()
        self._hooks: list[RemovableHandle] = []

    @property
    def marks(self) -> dict[str, Hashable]:
        """What each part wears: two jobs with the same marks get the same of it."""
        names = {name for lora, _ in self.loras for name in lora.changes}
        return {
            name: tuple((lora.identity, weight) for lora, weight in self.loras if name in lora.changes)
            for name in names
        }

    def dress(self, name: str, network: nn.Module) -> None:
        """Lay over the network of this name what changes it; nothing happens if that was done already.

        Raises `WrongLora` if its layers are others than the LoRA was made for.
        """
        if network in self._dressed:
            return
        fitted = [
            (module, change, weight)
            for lora, weight in self.loras
            for module, change in _fitted(network, lora.changes.get(name, {}), lora, self.model)
        ]
        self._dressed.add(network)
        for module, change, weight in fitted:
            self._hooks.append(module.register_forward_hook(_addition(change, weight), with_kwargs=True))

    def take_off(self) -> None:
        """Leave all networks as they were."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._dressed.clear()


def _fitted(
    network: nn.Module, changes: Mapping[str, Change], lora: Lora, model: str
) -> Iterator[tuple[nn.Module, Change]]:
    """The layers of a network that a LoRA changes.

    Raises `WrongLora` if one of them is not there, or of another shape.
    """
    has_prefix = hasattr(network, "text_model")
    for name, change in changes.items():
        if not has_prefix:  # as text encoders had in earlier releases of transformers
            name = name.removeprefix("text_model.")
        try:
            module = network.get_submodule(name)
        except AttributeError:
            if "guidance_embedder" in name:  # FLUX.1 [schnell] has none and takes LoRAs of [dev] without it
                continue
            raise WrongLora(lora.name, f"another kind of {lora.made_for}", model) from None
        if name == "x_embedder":
            change = _padded(module, change)
        fitting = _fitting(module, change)
        if fitting is None:
            raise WrongLora(lora.name, f"another size of {lora.made_for}", model)
        yield module, fitting


def _fitting(module: nn.Module, change: Change) -> Change | None:
    """The change in the shape that a layer needs; None if it does not fit."""
    down, up = change.down, change.up
    if isinstance(module, nn.Linear):
        down, up = down.flatten(1), up.flatten(1)
        fits = down.shape[1] == module.in_features and up.shape[0] == module.out_features
    elif isinstance(module, nn.Conv2d):
        down = down if down.dim() == 4 else down[:, :, None, None]
        up = up if up.dim() == 4 else up[:, :, None, None]
        fits = (down.shape[1], up.shape[0]) == (module.in_channels, module.out_channels) and module.groups == 1
        fits = fits and tuple(down.shape[2:]) == module.kernel_size and tuple(up.shape[2:]) == (1, 1)
    else:
        return None
    return Change(down, up, change.scale) if fits and down.shape[0] == up.shape[1] else None


def _padded(module: nn.Module, change: Change) -> Change:
    """FLUX.1 [Fill]'s tokens begin with what those of the other variants are, so that their LoRAs suit it."""
    lacking = getattr(module, "in_features", 0) - change.down.shape[1]
    return Change(functional.pad(change.down, (0, lacking)), change.up, change.scale) if lacking > 0 else change


def _addition(change: Change, weight: float) -> Callable[..., Tensor]:
    """What a layer calls after its pass."""
    scale = weight * change.scale

    def add(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
        seen: Tensor = inputs[0] if inputs else named["input"]
        seen = seen.to(change.down.dtype)
        if isinstance(module, nn.Conv2d):
            less = functional.conv2d(seen, change.down, None, module.stride, module.padding, module.dilation)
            return (output + functional.conv2d(less, change.up) * scale).to(output.dtype)
        return (output + functional.linear(functional.linear(seen, change.down), change.up) * scale).to(output.dtype)

    return add


# Files


def _read(path: Path, key: Hashable, model: str, family: str, parts: Parts, dtypes: Mapping[str, torch.dtype]) -> Lora:
    """The LoRA in a file, on the device.

    Raises `WrongLora` and `ModelBroken`.
    """
    header, made_for = _checked(path, model, family)
    try:
        found = _changes(load_file(path), family, parts, json.loads(header.metadata.get(NOTES, "{}")))
        changes = {
            part: {layer: _kept(change, parts.device.torch_device, dtypes[part]) for layer, change in layers.items()}
            for part, layers in found.items()
            if part in dtypes
        }
    except (ValueError, KeyError, IndexError, RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
        # whatever names that nobody expected make the converters raise
        log.info("the LoRA %s cannot be converted: %s", path.name, error)
        raise ModelBroken(path.stem, "it is a LoRA in a form that is not known") from error
    return Lora(path.stem, made_for, key, changes)


def _kept(change: Change, device: torch.device, dtype: torch.dtype) -> Change:
    """A change on the device. It is a copy: what is mapped from a file is lost when the file is written anew."""
    down, up = (factor.to(device, dtype, copy=True) for factor in (change.down, change.up))
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
        divisor = math.sqrt(rank) if notes.get(f"{part}.use_rslora") else rank
        scale = 1.0 if alpha is None else float(alpha) / divisor
        found.setdefault(part, {})[layer] = Change(down, up, scale)
    return found


def _converted(tensors: dict[str, Tensor], family: str, parts: Parts) -> dict[str, Any]:
    """The tensors and alphas of a LoRA by names that begin with a part's."""
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


def _noted_alpha(notes: Mapping[str, Any], part: str, layer: str) -> float | None:
    """What diffusers noted for a layer; None if it noted nothing."""
    for pattern, alpha in (notes.get(f"{part}.alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", layer):
            return float(alpha)
    alpha = notes.get(f"{part}.lora_alpha")
    return None if alpha is None else float(alpha)
