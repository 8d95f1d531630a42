"""GGUF files as ComfyUI's converter writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from underpaint_backend.models.gguf import TYPES


def write_gguf(path: Path, weights: Mapping[str, Tensor], kind: str, arch: str = "flux") -> Path:
    """A file as ComfyUI's converter writes it: layers quantised, the rest as numbers; by llama.cpp's own library.

    Where rows have no whole blocks, it lays weights out anew and notes their shapes.
    """
    import gguf

    wanted = gguf.GGMLQuantizationType[kind]
    block = TYPES[int(wanted)][1]
    writer = gguf.GGUFWriter(str(path), arch=arch)
    for name, value in weights.items():
        numbers = value.float().numpy()
        dtype = wanted if numbers.ndim > 1 and numbers.size % 256 == 0 else gguf.GGMLQuantizationType.F32
        if dtype == wanted and numbers.shape[-1] % block:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(numbers.shape))
            numbers = numbers.reshape(-1, 256)
        writer.add_tensor(name, gguf.quants.quantize(numbers, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
