"""Files whose weights are quantised: GGUF, and what bitsandbytes and torchao write into safetensors.

Each becomes plain tensors and `Quantised` ones, by their names. Nothing in a file is believed that could have a library
read beyond the end of a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..models import extras
from ..models.gguf import BLOCKS, PLAIN, GgufHeader
from ..models.headers import read_header
from .exceptions import BadFiles
from .packing import Packed, Unread, read_bytes
from .quantisation import Quantised, Weights, in_blocks

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def refuse_without(extra: str) -> None:
    """Raises `BadFiles` if an extra is not installed."""
    words = extras.lacking(extra)
    if words:
        raise BadFiles(f"its weights are packed by {extra}; {words}")


# GGUF


def read_gguf_tensors(path: Path, header: GgufHeader, names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors of a GGUF file: plain, or diffusers' `GGUFParameter`, which converters can split and join by rows.

    Raises `BadFiles`.
    """
    refuse_without(extras.GGUF)
    from diffusers.quantizers.gguf.utils import GGUFParameter
    from gguf import GGMLQuantizationType

    found: dict[str, Tensor] = {}
    for name in names:
        stored = header.tensors[name]
        data = read_bytes(path, header.places[name], stored.size)
        if stored.dtype in PLAIN:
            found[name] = data.view(_DTYPES[stored.dtype]).view(stored.shape)
            continue
        # Rows stay rows where they are whole blocks, so that converters can split them; else all blocks are in one.
        whole_rows = len(stored.shape) == 2 and stored.shape[1] % BLOCKS[stored.dtype] == 0
        rows = data.view(stored.shape[0] if whole_rows else 1, -1)
        blocks = GGUFParameter(rows, quant_type=GGMLQuantizationType[stored.dtype])
        blocks.whole = stored.shape
        found[name] = blocks
    return found


def from_gguf(tensors: Mapping[str, Tensor]) -> Weights:
    """What a network is made of, from tensors that a converter has given its names."""
    return {name: _gguf(value) if hasattr(value, "quant_type") else Unread.of(value) for name, value in tensors.items()}


def restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, all of them plain."""
    return {
        name: _gguf(value).read(torch.float32).view(_shape_of(value)) if hasattr(value, "quant_type") else value
        for name, value in tensors.items()
    }


def _gguf(blocks: Any) -> Quantised:
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor

    kept, kind = blocks.as_tensor(), blocks.quant_type

    def place(device: torch.device, dtype: torch.dtype) -> Packed:
        here = kept.to(device)
        return Packed(here.nbytes, lambda: dequantize_gguf_tensor(GGUFParameter(here, quant_type=kind)).to(dtype))

    return Quantised(_shape_of(blocks), place)


def _shape_of(blocks: Any) -> tuple[int, ...]:
    return tuple(getattr(blocks, "whole", blocks.quant_shape))


# safetensors


def read_quantised(paths: Iterable[Path], quantiser: str) -> Weights:
    """The weights in files that `quantiser` packed.

    Raises `BadFiles` if they are damaged or the extra is not installed.
    """
    if quantiser not in (extras.BITSANDBYTES, extras.TORCHAO):
        raise BadFiles(f"its weights are packed by {quantiser}, which is not read")
    refuse_without(quantiser)
    tensors: dict[str, Tensor] = {}
    notes: dict[str, str] = {}
    for path in paths:
        notes |= read_header(path).metadata
        # A copy: what is mapped from a file is lost when the file is written anew.
        tensors |= {name: value.clone() for name, value in load_file(path).items()}
    return from_bitsandbytes(tensors) if quantiser == extras.BITSANDBYTES else from_torchao(tensors, notes)


def from_torchao(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> Weights:
    """What torchao took apart to be stored, put together again by torchao."""
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

    # A tensor without a module before its name is never one of torchao's, which could not parse it.
    bare = {name: value for name, value in tensors.items() if "." not in name}
    found, rest = unflatten_tensor_state_dict({k: v for k, v in tensors.items() if k not in bare}, dict(notes))
    if rest:
        raise BadFiles(f"it has {len(rest)} tensors that belong to nothing, such as {min(rest)}")
    tensors = {**bare, **found}
    return {name: Unread.of(value) if type(value) is Tensor else _torchao(value) for name, value in tensors.items()}


def _torchao(weight: Any) -> Quantised:
    def place(device: torch.device, dtype: torch.dtype) -> Packed:
        here = weight.to(device)
        names = (*here.tensor_data_names, *getattr(here, "optional_tensor_data_names", ()))
        parts = [getattr(here, name) for name in names]
        size = sum(part.nbytes for part in parts if isinstance(part, Tensor))
        return Packed(size, lambda: here.dequantize().to(dtype))

    return Quantised(tuple(weight.shape), place)


def from_bitsandbytes(tensors: Mapping[str, Tensor]) -> Weights:
    """What bitsandbytes packed: in 4 bits with a state of several tensors beside each, or in 8 bits with scales."""
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        weight, mark, rest = name.partition(".weight.")
        if mark:
            states.setdefault(f"{weight}.weight", {})[rest] = value
    found: dict[str, Unread | Quantised] = {}
    for name, value in tensors.items():
        scales = tensors.get(f"{name.removesuffix('weight')}SCB")
        if name in states:
            found[name] = _in_4_bits(name, value, states[name])
        elif name.endswith(".weight") and value.dtype == torch.int8 and scales is not None:
            found[name] = _in_8_bits(name, value, scales)
        elif ".weight." not in name and not name.endswith((".SCB", ".weight_format")):
            found[name] = Unread.of(value)
    return found


def _in_8_bits(name: str, rows: Tensor, scales: Tensor) -> Quantised:
    if rows.dim() != 2 or scales.shape != rows.shape[:1]:
        raise BadFiles(f"{name} has {scales.numel()} scales for the shape {tuple(rows.shape)}")

    def place(device: torch.device, dtype: torch.dtype) -> Packed:
        from bitsandbytes.functional import int8_vectorwise_dequant

        here, by = rows.to(device), scales.to(device, torch.float32)
        return Packed(here.nbytes + by.nbytes, lambda: int8_vectorwise_dequant(here, by).to(dtype))

    return Quantised(tuple(rows.shape), place)


def _in_4_bits(name: str, packed: Tensor, parts: Mapping[str, Tensor]) -> Quantised:
    from bitsandbytes.functional import QuantState, dequantize_4bit

    state = QuantState.from_dict(dict(parts), torch.device("cpu"))
    _refuse_lies(name, packed, state)

    def place(device: torch.device, dtype: torch.dtype) -> Packed:
        here, by = packed.reshape(-1, 1).to(device), QuantState.from_dict(dict(parts), device)
        by.dtype, by.shape = dtype, torch.Size(in_blocks(prod(state.shape), by.blocksize))
        size = here.nbytes + sum(value.nbytes for value in parts.values())
        return Packed(size, lambda: dequantize_4bit(here, by))

    return Quantised(tuple(state.shape), place)


def _refuse_lies(name: str, packed: Tensor, state: Any) -> None:
    """Raises `BadFiles` if a state claims more numbers than there are: it is native code that would believe it."""
    numbers, blocks = prod(state.shape or ()), 0
    if isinstance(state.blocksize, int) and 0 < state.blocksize <= 4096 and state.blocksize % 32 == 0:
        blocks = -(-numbers // state.blocksize)
    sound = (
        bool(blocks)
        and (packed.dtype, packed.numel()) == (torch.uint8, (numbers + 1) // 2)
        and (state.code.dtype, state.code.numel()) == (torch.float32, 16)
        and state.absmax.numel() == blocks
    )
    if state.nested:
        second = state.state2
        inner = second.blocksize if isinstance(second.blocksize, int) and 0 < second.blocksize <= 4096 else 0
        sound = (
            sound
            and bool(inner)
            and state.absmax.dtype == torch.uint8
            and (second.code.dtype, second.code.numel()) == (torch.float32, 256)
            and (second.absmax.dtype, second.absmax.numel()) == (torch.float32, -(-blocks // max(1, inner)))
        )
    else:
        sound = sound and state.absmax.dtype == torch.float32
    if not sound:
        raise BadFiles(f"the state of {name} does not fit its numbers")
