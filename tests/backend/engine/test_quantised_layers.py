"""Numbers and layers of GGUF files: as llama.cpp restores them, by diffusers' names, and where they wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import nn
from underpaint_backend.engine.packing import Packed, bytes_of
from underpaint_backend.engine.quantisation import Quantised, filled_as_stored
from underpaint_backend.engine.quantised_files import from_gguf, read_gguf_tensors
from underpaint_backend.engine.single_file import SingleFileSource
from underpaint_backend.models.gguf import PLAIN, QUANTISED, TYPES, read_gguf

from tests.backend.engine.gguf_models import write_gguf
from tests.backend.engine.single_files import FolderOnly, original_sd
from tests.backend.engine.tiny import build_tiny
from tests.backend.models import gguf_files, original

pytestmark = pytest.mark.usefixtures("extras")

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", [*QUANTISED, *PLAIN])
def test_numbers_are_restored_as_llama_cpp_restores_them(tmp_path: Path, kind: str) -> None:
    """Of any bytes in blocks, for every type that is read."""
    import gguf

    number = gguf_files.NUMBERS[kind]
    _, block, size = TYPES[number]
    columns, rows = max(256, block), 6
    data = np.random.default_rng(number).integers(0, 256, (rows, columns // block * size), dtype=np.uint8)
    if kind in PLAIN:
        data = gguf.quants.quantize(np.linspace(-1, 1, rows * columns, dtype=np.float32).reshape(rows, columns), number)
    else:
        scales = data.reshape(-1, size)  # scales that are numbers, wherever in a block they are
        scales[:, 0:4] = np.frombuffer(np.float16([0.01, 0.02]).tobytes(), dtype=np.uint8)
        scales[:, -4:] = scales[:, 0:4]
    path = gguf_files.write(tmp_path / "model.gguf", [gguf_files.Line("a", (rows, columns), kind)])
    header = read_gguf(path)
    with path.open("r+b") as file:
        file.seek(header.places["a"])
        file.write(data.tobytes())

    value = from_gguf(read_gguf_tensors(path, header, ["a"]))["a"]

    expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(number)).reshape(rows, columns)
    found = value.read(torch.float32)
    assert np.isfinite(expected).all()
    assert np.abs(expected).max() > 0
    # diffusers multiplies in half precision
    np.testing.assert_allclose(found.float().numpy(), expected, rtol=4e-3, atol=4e-3 * float(np.abs(expected).max()))


def test_a_transformer_of_flux1_is_converted(tmp_path: Path) -> None:
    """Of its real width, for diffusers' converter knows no other; one block of each kind is enough."""
    config = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}
    with torch.device("meta"):
        model = FluxTransformer2DModel(**config)
    model.save_config(tmp_path / "pack" / "transformer")
    shapes = {name: tuple(value.shape) for name, value in original.flux1(model.state_dict()).items()}
    lines = [
        gguf_files.Line(name, shape, "Q4_K" if len(shape) > 1 and shape[1] % 256 == 0 else "F16")
        for name, shape in shapes.items()
    ]
    path = gguf_files.write(tmp_path / "model.gguf", lines)
    header = read_gguf(path)
    marked = ["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"]
    with path.open("r+b") as file:
        for index, name in enumerate(marked):
            file.seek(header.places[name])
            # a block of Q4_K: d, dmin, the first scale, and the first number
            file.write(np.float16([index + 1, 0]).tobytes() + bytes([1]) + bytes(11) + bytes([1]))

    source = FolderOnly(path, tmp_path / "pack")
    network: Any = source.quantised_network("transformer", FluxTransformer2DModel, torch.bfloat16, CPU, waits=False)

    def corner(layer: nn.Module) -> float:
        found: list[float] = []
        hook = layer.register_forward_pre_hook(lambda module, _: found.append(float(module.weight[0, 0])))
        layer(torch.zeros(1, layer.in_features, dtype=torch.bfloat16))
        hook.remove()
        return found[0]

    block, single = network.transformer_blocks[0], network.single_transformer_blocks[0]
    assert [corner(layer) for layer in (block.attn.to_q, block.attn.to_k)] == [1.0, 0.0]
    assert [corner(layer) for layer in (single.attn.to_q, single.proj_mlp)] == [2.0, 0.0]
    assert source.quantised_bytes("transformer") == pytest.approx(bytes_of(network), rel=1e-6)


def test_a_unet_is_read_with_its_kernels(tmp_path: Path) -> None:
    """Stable Diffusion's, bare and laid out anew as ComfyUI's converter does; kernels stay quantised."""
    folder = build_tiny(tmp_path / "sd", 4).folder
    prefix = "model.diffusion_model."
    bare = {k.removeprefix(prefix): v for k, v in original_sd(folder).items() if k.startswith(prefix)}
    path = write_gguf(tmp_path / "unet.gguf", bare, "Q8_0", "sd1")
    assert b"comfy.gguf.orig_shape." in path.read_bytes()

    source = SingleFileSource(path, folder, folder)
    unet: Any = source.quantised_network("unet", UNet2DConditionModel, torch.float32, CPU, waits=False)
    plain: Any = UNet2DConditionModel.from_pretrained(folder / "unet")

    kinds = {type(layer) for layer in unet.modules() if hasattr(layer, "packed_bytes")}
    assert kinds == {nn.Linear, nn.Conv2d}
    torch.manual_seed(0)
    width = plain.config.cross_attention_dim
    told = (torch.randn(1, 4, 16, 16), torch.tensor(500), torch.randn(1, 7, width))
    with torch.inference_mode():
        found, expected = unet(*told)[0], plain(*told)[0]
    assert 1e-4 < (found - expected).norm() / expected.norm() < 0.05


def test_a_weight_that_waits_comes_for_its_pass(tmp_path: Path) -> None:
    """On a device with memory of its own it takes nothing there between passes."""
    places: list[torch.device] = []

    def place(device: torch.device, dtype: torch.dtype) -> Packed:
        places.append(device)
        return Packed(64, lambda: torch.ones(8, 8, dtype=dtype))

    network = nn.Sequential(nn.Linear(8, 8, bias=False))
    weights = {"0.weight": Quantised((8, 8), place)}
    filled_as_stored("some", network, weights, torch.float32, CPU, waits=True)

    assert (places, network[0].packed_bytes) == ([], 0)
    assert torch.equal(network(torch.ones(1, 8)), torch.full((1, 8), 8.0))
    assert places == [CPU]
