"""Networks that are made without weights, and filled from what is stored one weight after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from .exceptions import BadFiles
from .packing import LAYERS, SMALLEST, Pack, Packed, Unread, keep_packed


class Weight(Protocol):
    """A weight that is not in its network yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How long it is in each direction."""

    def read(self, dtype: torch.dtype, /) -> Tensor:
        """Its numbers in this precision, on the CPU."""


W = TypeVar("W", bound=Weight)


def is_of_diffusers(cls: Any) -> bool:
    """Whether a class of networks is one of diffusers, and not of transformers or of our own."""
    return hasattr(cls, "from_config")


def empty(cls: Any, config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """A network of diffusers or transformers without its weights, with those buffers that it makes itself.

    They are in the precision that each library gives them when it loads for `dtype`: diffusers casts them all, and
    transformers leaves as they are what it calculates places in prompts with.
    """
    plain = {name: value for name, value in config.items() if name != "quantization_config"}
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(before if is_of_diffusers(cls) else dtype)
        with init_empty_weights(include_buffers=False):
            network: nn.Module = cls.from_config(plain) if is_of_diffusers(cls) else cls(cls.config_class(**plain))
    finally:
        torch.set_default_dtype(before)
    if is_of_diffusers(cls):
        for module in network.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, buffer.to(dtype) if buffer.is_floating_point() else buffer)
    return network


def keeps_some_exact(network: nn.Module, dtype: torch.dtype) -> bool:
    """Whether some weights of a network are not in `dtype` when its library loads it, as they would overflow in it."""
    strict = getattr(network, "_keep_in_fp32_modules_strict", None)
    some = getattr(network, "_keep_in_fp32_modules", None)
    return dtype != torch.float32 and bool(
        strict or (some and (is_of_diffusers(type(network)) or dtype == torch.float16))
    )


def stored_names(network: nn.Module) -> dict[str, str]:
    """For each parameter, under which name its numbers are stored: those of some are shared with another."""
    tied: Mapping[str, str] = getattr(network, "all_tied_weights_keys", None) or {}
    return {name: tied.get(name, name) for name, _ in network.named_parameters(remove_duplicate=False)}


def needed(network: nn.Module) -> set[str]:
    """The names of all numbers without which a network is not whole."""
    state = network.state_dict()
    buffers = {name for name, buffer in network.named_buffers() if buffer.is_floating_point() and name in state}
    return set(stored_names(network).values()) | buffers


def filled(
    name: str,
    network: nn.Module,
    weights: Mapping[str, W],
    dtype: torch.dtype,
    device: torch.device,
    pack: Callable[[W], Packed | None],
) -> nn.Module:
    """The network `name`, for `device`, with its weights. Of layers, those stay packed that `pack` packs.

    Raises `BadFiles` if weights are missing or of another shape.
    """
    stored = stored_names(network)
    refuse_gaps(name, needed(network) - set(weights))
    made: dict[str, nn.Parameter] = {}
    for path, module in network.named_modules():
        for own, parameter in list(module.named_parameters(recurse=False)):
            source, shape = stored[f"{path}.{own}".lstrip(".")], parameter.shape
            weight = weights[source]
            _refuse_misfits(name, source, weight, shape)
            packed = pack(weight) if isinstance(module, LAYERS) and own == "weight" else None
            if packed is not None:
                module.weight = nn.Parameter(torch.zeros((), dtype=dtype).expand(shape), requires_grad=False)
                keep_packed(module, replace(packed, unpack=partial(_unpacked, packed, shape)), device)
                continue
            if source not in made:
                made[source] = nn.Parameter(weight.read(dtype).view(shape), requires_grad=False)
            setattr(module, own, made[source])
        for own, buffer in list(module.named_buffers(recurse=False)):
            source = f"{path}.{own}".lstrip(".")
            if buffer.is_floating_point() and source in weights:
                _refuse_misfits(name, source, weights[source], buffer.shape)
                setattr(module, own, weights[source].read(buffer.dtype).view(buffer.shape))
    return network.eval().requires_grad_(False)


def streamed(
    name: str,
    network: nn.Module,
    weights: Mapping[str, Unread],
    dtype: torch.dtype,
    device: torch.device,
    pack: Pack,
) -> nn.Module:
    """The network `name`, for `device`, its layers packed as they are read, so that it is never there as a whole.

    Raises `BadFiles` if weights are missing or of another shape.
    """

    def packed(weight: Unread) -> Packed | None:
        size = torch.Size(weight.shape).numel() * dtype.itemsize
        return pack(partial(weight.read, dtype)) if size >= SMALLEST else None

    return filled(name, network, weights, dtype, device, packed)


def refuse_gaps(name: str, missing: Iterable[str]) -> None:
    """Raises `BadFiles` if a network's weights are not all there. Some buffers are made anew and never stored."""
    lacking = sorted(key for key in missing if not key.endswith("position_ids"))
    if lacking:
        raise BadFiles(f"{name} lacks {len(lacking)} weights, such as {lacking[0]}")


def _refuse_misfits(name: str, key: str, weight: Weight, shape: torch.Size) -> None:
    found = weight.shape
    while len(found) > len(shape) and found[-1] == 1:  # a kernel of one pixel is a layer
        found = found[:-1]
    if found != tuple(shape):
        raise BadFiles(f"{name}: {key} has the shape {weight.shape} and not {tuple(shape)}")


def _unpacked(packed: Packed, shape: torch.Size) -> Tensor:
    return packed.unpack().view(shape)
