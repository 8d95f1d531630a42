"""Weights in 8 or 4 bits as the libraries of the optional extras make them: torchao's int8, bitsandbytes' nf4.

A layer's numbers are restored for the time of its pass, as `packing` does it, whoever packed them. So all that is done
with plain layers is done with these, too: LoRAs, cancelling within a product, streaming from the disk, convolutions.
The libraries are imported only when they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from underpaint_protocol.errors import describe

from ..models import extras
from .device import Device, is_out_of_memory
from .exceptions import BadFiles, EngineError
from .packing import LAYERS, Pack, Packed, keep_packed
from .precision import PACKED, Precision, Storage
from .sources import refuse_gaps

log = logging.getLogger(__name__)

BLOCK = 64
"""Numbers that share a scale in nf4, as bitsandbytes has it by default."""
WORST = 0.2
"""Of numbers on a line, the relative error beyond which what a device gives back is not what it was given."""


class CannotQuantise(EngineError):
    """Weights cannot be kept in the chosen precision: the extra is not installed, or the device cannot do it."""

    def __init__(self, precision: str, reason: str) -> None:
        super().__init__(describe("precision_unavailable", precision=precision, detail=reason))


def in_int8(device: torch.device) -> Pack:
    """Packing in 8 bits by torchao, with one scale for each row of a weight."""

    def pack(read: Callable[[], Tensor]) -> Packed:
        from torchao.quantization import Int8Tensor, PerRow

        weight = read().to(device)
        kept: Any = Int8Tensor.from_hp(weight.flatten(1), PerRow())
        shape = weight.shape
        return Packed(kept.qdata.nbytes + kept.scale.nbytes, lambda: kept.dequantize().view(shape))

    return pack


def in_nf4(device: torch.device) -> Pack:
    """Packing in 4 bits by bitsandbytes: the quantiles of a normal distribution (arXiv:2305.14314)."""

    def pack(read: Callable[[], Tensor]) -> Packed:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        weight = read().to(device)
        kept, state = quantize_4bit(weight.reshape(in_blocks(weight.numel(), BLOCK)), blocksize=BLOCK, quant_type="nf4")
        shape = weight.shape
        return Packed(kept.nbytes + state.absmax.nbytes, lambda: dequantize_4bit(kept, state).view(shape))

    return pack


def in_blocks(numbers: int, block: int) -> tuple[int, ...]:
    """The shape in which bitsandbytes is given weights: with whole blocks in each row, or in one row.

    On a CPU, its release 0.50.2 gives back others than it was given if blocks go on in the next row.
    """
    return (numbers,) if numbers % block else (numbers // block, block)


PACKS: Mapping[Storage, Callable[[torch.device], Pack]] = {Storage.INT8: in_int8, Storage.NF4: in_nf4}
"""Who packs what."""


def refuse_unusable(precision: Precision, device: Device) -> None:
    """Raises `CannotQuantise` if weights cannot be kept in this precision on this device: it is tried."""
    storage = PACKED.get(precision)
    if storage is None or storage not in PACKS:
        return
    words = extras.lacking(extras.FOR_PRECISION[precision])
    if words:
        raise CannotQuantise(precision, words)
    kind = device.dtype
    line = torch.linspace(-1, 1, BLOCK * BLOCK, dtype=torch.float32).view(BLOCK, BLOCK)
    try:
        pack = PACKS[storage](device.torch_device)
        found = pack(lambda: line.to(kind)).unpack().float().cpu()
    except Exception as error:  # whatever a library raises that was not made for this device
        if is_out_of_memory(error):
            raise
        log.info("%s on %s", precision, device.name, exc_info=error)
        words = (str(error).splitlines() or [""])[0][:160]
        raise CannotQuantise(precision, f"{device.name} cannot do it: {type(error).__name__}: {words}") from error
    if not (found - line).norm() <= WORST * line.norm():
        raise CannotQuantise(precision, f"{device.name} gives other numbers back than it was given")


# Networks whose files are quantised already


@dataclass(frozen=True)
class Quantised:
    """A weight as a file has it: its `shape`, and how it is placed on a device, to be restored in a precision."""

    shape: tuple[int, ...]
    place: Callable[[torch.device, torch.dtype], Packed]


Weights: TypeAlias = Mapping[str, Tensor | Quantised]


def empty(cls: Any, config: Mapping[str, Any]) -> nn.Module:
    """A network of diffusers or transformers without its weights."""
    plain = {name: value for name, value in config.items() if name != "quantization_config"}
    with init_empty_weights(include_buffers=False):
        network: nn.Module = cls.from_config(plain) if hasattr(cls, "from_config") else cls(cls.config_class(**plain))
    return network


def filled(
    name: str, network: nn.Module, weights: Weights, dtype: torch.dtype, device: torch.device, *, waits: bool
) -> nn.Module:
    """The network `name` with its weights, those of its layers quantised as they are.

    They are placed on the device at once or, where they wait in RAM, for the time of each pass.

    Raises `BadFiles` if weights are missing or of another shape.
    """
    tied = set(getattr(network, "all_tied_weights_keys", None) or ())
    refuse_gaps(name, sorted({key for key, _ in network.named_parameters()} - set(weights) - tied))
    for path, module in network.named_modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            full = f"{path}.{key}".lstrip(".")
            if full not in weights:
                continue
            value = _fitted(name, full, weights[full], parameter.shape)
            if isinstance(value, Tensor):
                setattr(module, key, nn.Parameter(value.to(dtype), requires_grad=False))
            elif isinstance(module, LAYERS) and key == "weight":
                hold = torch.zeros((), dtype=dtype).expand(parameter.shape)
                module.weight = nn.Parameter(hold, requires_grad=False)
                keep_packed(module, _placed(value, device, dtype, waits=waits))
            else:
                whole = value.place(torch.device("cpu"), dtype).unpack().view(parameter.shape)
                setattr(module, key, nn.Parameter(whole, requires_grad=False))
        for key, buffer in list(module.named_buffers(recurse=False)):
            value = weights.get(f"{path}.{key}".lstrip("."), buffer)
            if isinstance(value, Tensor):
                setattr(module, key, value.to(dtype) if value.is_floating_point() else value)
    if tied:
        network.tie_weights()  # type: ignore[operator]
    return network.eval().requires_grad_(False)


def _fitted(name: str, key: str, value: Tensor | Quantised, shape: torch.Size) -> Tensor | Quantised:
    if tuple(value.shape) == tuple(shape):
        return value
    trailing = tuple(value.shape)
    while len(trailing) > len(shape) and trailing[-1] == 1:  # a kernel of one pixel is a layer
        trailing = trailing[:-1]
    if trailing != tuple(shape):
        raise BadFiles(f"{name}: {key} has the shape {tuple(value.shape)} and not {tuple(shape)}")
    return value.view(shape) if isinstance(value, Tensor) else Quantised(trailing, value.place)


def _placed(value: Quantised, device: torch.device, dtype: torch.dtype, *, waits: bool) -> Packed:
    def restored(packed: Packed) -> Tensor:
        return packed.unpack().view(value.shape)

    if waits:
        return Packed(0, lambda: restored(value.place(device, dtype)))
    packed = value.place(device, dtype)
    return Packed(packed.bytes, lambda: restored(packed))
