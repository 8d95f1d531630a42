"""What weights are kept in, and where: chosen from the memory that is there, unless somebody chose it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, TypeAlias

import torch

from .device import Device

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16", "fp8", "int8", "nf4"]
Offload: TypeAlias = Literal["auto", "none", "group"]

WORKING_SHARE = 0.8
"""Of the memory that is there, what weights may take at most: the rest is for what the model calculates."""


class Storage(IntEnum):
    """How the weights of a network are kept between its passes. Each needs less memory, and more time, than the last.

    PLAIN    as they are calculated with, on the device
    FP8      in 8 bits, one scale for each row; a layer's are converted for the time of its pass
    INT8     the same, as torchao does it: only where somebody chose it
    NF4      in 4 bits, one scale for 64 numbers, as bitsandbytes does it: only where somebody chose it
    FETCHED  not on the device: a layer's are fetched for the time of its pass, from RAM, or on a CPU from the disk
    FILED    as its files have them, which are quantised already, on the device: nobody chooses that
    """

    PLAIN = 0
    FP8 = 1
    INT8 = 2
    NF4 = 3
    FETCHED = 4
    FILED = 5


BYTES: Mapping[Storage, float] = {Storage.FP8: 1, Storage.INT8: 1, Storage.NF4: 0.5 + 4 / 64, Storage.FETCHED: 0}
"""What a number of a packed network takes on the device, but for the scales of rows."""
PACKED: Mapping[str, Storage] = {"fp8": Storage.FP8, "int8": Storage.INT8, "nf4": Storage.NF4}
"""How weights are kept in the precisions that are packed."""


@dataclass(frozen=True)
class Memory:
    """What somebody chose about memory. All that is left open is chosen from the memory that is there.

    `limit` and `ram` bound, in bytes, what networks take on the device and what those take that wait in RAM.
    """

    limit: int | None = None
    ram: int | None = None
    precision: Precision = "auto"
    offload: Offload = "auto"

    def device(self, device: Device) -> Device:
        """The device, calculating in the chosen precision. Of packed weights, it is the device's own."""
        kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
        return replace(device, dtype=kinds.get(self.precision, device.dtype))

    def storage(self, largest: int, room: int) -> Storage:
        """How to keep weights where `room` bytes are and the largest network has `largest`: it must have room alone."""
        if self.offload == "group":
            return Storage.FETCHED
        if self.precision in PACKED:
            return PACKED[self.precision]
        if self.precision != "auto" or largest <= WORKING_SHARE * room:
            return Storage.PLAIN
        halved = largest // 2  # of half precision; of single precision, it is even less
        return Storage.FP8 if halved <= WORKING_SHARE * room or self.offload == "none" else Storage.FETCHED

    def allows(self, storage: Storage) -> bool:
        """Whether the ladder may go there when memory is short."""
        if storage == Storage.FETCHED:
            return self.offload != "none"
        return self.precision in ("auto", "fp8") or storage == Storage.PLAIN


def words_for(dtype: torch.dtype, storage: Storage) -> str:
    """What is calculated and kept in, for people: "bfloat16", "bfloat16, weights in fp8"."""
    kind = str(dtype).removeprefix("torch.")
    ends = {
        Storage.PLAIN: "",
        Storage.FETCHED: ", weights fetched for each layer",
        Storage.FILED: ", weights as their files have them",
    }
    return kind + ends.get(storage, f", weights in {storage.name.lower()}")
