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
from torch import Tensor, nn
from underpaint_protocol.errors import describe

from ..models import extras
from .device import Device, is_out_of_memory
from .exceptions import EngineError
from .filling import filled
from .packing import Pack, Packed, Unread
from .precision import PACKED, Precision, Storage

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

    def read(self, dtype: torch.dtype) -> Tensor:
        """Its numbers, on the CPU."""
        return self.place(torch.device("cpu"), dtype).unpack()


Weights: TypeAlias = Mapping[str, Unread | Quantised]


def filled_as_stored(
    name: str, network: nn.Module, weights: Weights, dtype: torch.dtype, device: torch.device, *, waits: bool
) -> nn.Module:
    """The network `name` with its weights, those of its layers quantised as they are.

    They are placed on the device at once or, where they wait in RAM, for the time of each pass.

    Raises `BadFiles` if weights are missing or of another shape.
    """

    def placed(weight: Unread | Quantised) -> Packed | None:
        if isinstance(weight, Unread):
            return None
        place = weight.place
        return Packed(0, lambda: place(device, dtype).unpack()) if waits else place(device, dtype)

    return filled(name, network, weights, dtype, device, placed)
