"""Weights in less room: a layer's are unpacked for the time of its pass.

diffusers has the like (layerwise casting, group offloading). These also work on a CPU and for text encoders, keep a
scale for each row, without which 8 bits are far too coarse for weights below 1/64, and never hold a whole network.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..models.headers import BadFile, Stored, read_header
from .exceptions import BadFiles

LAYERS = (nn.Linear, nn.Conv2d)
"""Layers whose weights are packed. Those of others are few, or wanted outside of their passes."""
SMALLEST = 1 << 12
"""Weights of fewer bytes than this are left as they are."""
LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max


@dataclass(frozen=True)
class Packed:
    """A tensor in less room: `bytes` that it takes on the device, and what gives it back."""

    bytes: int
    unpack: Callable[[], Tensor]


Pack: TypeAlias = Callable[[Callable[[], Tensor]], Packed]
"""From what reads a tensor to the tensor, packed; it reads at once or when the tensor is wanted."""


def in_fp8(device: torch.device) -> Pack:
    """Packing in 8 bits (e4m3) with one scale for each row of a weight."""

    def pack(read: Callable[[], Tensor]) -> Packed:
        weight = read()
        largest = torch.linalg.vector_norm(weight.flatten(1), torch.inf, 1, dtype=torch.float32)
        scale = (largest.clamp(min=1e-12) / LARGEST_FP8).reshape(-1, *[1] * (weight.dim() - 1))
        kept = (weight.float() / scale).to(torch.float8_e4m3fn).to(device)
        scale, dtype = scale.to(device), weight.dtype
        return Packed(kept.nbytes + scale.nbytes, lambda: kept.float().mul_(scale).to(dtype))

    return pack


def in_ram(device: torch.device) -> Pack:
    """Keeping in RAM what is needed on a device with memory of its own."""

    def pack(read: Callable[[], Tensor]) -> Packed:
        kept = read().cpu()
        return Packed(0, lambda: kept.to(device, non_blocking=True))

    return pack


def on_disk(device: torch.device) -> Pack:
    """Reading it again from where it came each time."""
    return lambda read: Packed(0, lambda: read().to(device))


def pack_layers(network: nn.Module, pack: Pack, device: torch.device) -> None:
    """Pack the weights of a network's layers, which goes to `device`."""
    for module in network.modules():
        if isinstance(module, LAYERS) and module.weight.nbytes >= SMALLEST:
            keep_packed(module, pack(module.weight.detach), device)


def bytes_of(network: nn.Module) -> int:
    """Bytes that a network's weights take, packed or not."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*network.parameters(), *network.buffers())
    }
    return sum(storages.values()) + sum(getattr(module, "packed_bytes", 0) for module in network.modules())


def keep_packed(module: Any, packed: Packed, device: torch.device) -> None:
    """Keep a layer's weight packed, but for the time of each of its passes.

    The number that stands for it meanwhile is on `device` already: whoever moves it there makes a whole weight of it.
    """
    with torch.inference_mode(False):
        empty = torch.zeros((), dtype=module.weight.dtype, device=device).expand(module.weight.shape)
    module.packed_bytes = packed.bytes

    def unpack(module: Any, inputs: Any) -> None:
        module.weight.data = packed.unpack()

    def forget(module: Any, inputs: Any, output: Any) -> None:
        module.weight.data = empty

    module.register_forward_pre_hook(unpack)
    module.register_forward_hook(forget, always_call=True)
    module.weight = nn.Parameter(empty, requires_grad=False)


@dataclass(frozen=True)
class Unread:
    """A tensor that is read when it is wanted: of this shape, in the precision that it is asked for, on the CPU."""

    shape: tuple[int, ...]
    read: Callable[[torch.dtype], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> Unread:
        """A tensor that is here, or mapped from a file."""
        whole = tensor.is_floating_point()
        return cls(tuple(tensor.shape), lambda dtype: tensor.to(dtype) if whole else tensor)


def in_files(paths: Iterable[Path]) -> dict[str, Unread]:
    """The tensors in safetensors files, by name, read one at a time and in pieces, without mapping the files.

    Raises `BadFiles` if the header of one is damaged.
    """
    return {name: in_file(path, stored) for path in paths for name, stored in _tensors(path)}


def numbers_in(tensors: Mapping[str, Unread]) -> int:
    """How many numbers they hold in all."""
    return sum(math.prod(tensor.shape) for tensor in tensors.values())


def in_file(path: Path, stored: Stored) -> Unread:
    """A tensor of floating point numbers that lies somewhere in a file."""

    def read(dtype: torch.dtype) -> Tensor:
        data = read_bytes(path, stored.begin, stored.size)
        return data.view(_DTYPES[stored.dtype]).view(stored.shape).to(dtype)

    return Unread(tuple(stored.shape), read)


def located(path: Path, tensors: Mapping[str, tuple[Tensor, Stored]], views: Mapping[str, Tensor]) -> dict[str, Unread]:
    """What was made of `tensors`, which are mapped from the file, each to be read from its place there.

    Of what is no view of one of them, there is a copy.
    """
    places = sorted(((tensor.data_ptr(), stored) for tensor, stored in tensors.values()), key=itemgetter(0))
    starts = [start for start, _ in places]
    found: dict[str, Unread] = {}
    for name, view in views.items():
        start, stored = places[max(0, bisect_right(starts, view.data_ptr()) - 1)]
        offset = view.data_ptr() - start
        if not (view.numel() and 0 <= offset < stored.size and _DTYPES.get(stored.dtype) == view.dtype):
            found[name] = Unread.of(view.clone())
        elif view.is_contiguous():
            part = replace(stored, shape=tuple(view.shape), begin=stored.begin + offset, size=view.nbytes)
            found[name] = in_file(path, part)
        else:
            found[name] = _strided(in_file(path, stored), view, offset // view.element_size())
    return found


def _strided(whole: Unread, view: Tensor, offset: int) -> Unread:
    shape, stride = tuple(view.shape), view.stride()
    return Unread(shape, lambda dtype: whole.read(dtype).flatten().as_strided(shape, stride, offset))


PIECE = 16 << 20
"""Bytes that are read at once."""


def read_bytes(path: Path, begin: int, size: int) -> Tensor:
    """Bytes of a file, without mapping it.

    Raises `BadFiles` if they are not all there.
    """
    data, at = torch.empty(size, dtype=torch.uint8), 0
    with path.open("rb", buffering=0) as file:
        file.seek(begin)
        while at < size:
            piece = data[at : at + PIECE]  # a call of torch, before which somebody may ask whether to go on
            got = file.readinto(piece.numpy().data)
            if not got:
                raise BadFiles(f"{path.name} ends too early")
            at += got
    return data


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def _tensors(path: Path) -> Iterator[tuple[str, Stored]]:
    try:
        header = read_header(path)
    except BadFile as error:
        raise BadFiles(f"{path.name}: {error}") from error
    return ((name, stored) for name, stored in header.tensors.items() if stored.dtype in _DTYPES)
