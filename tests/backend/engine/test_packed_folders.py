"""Folders of diffusers' layout that were packed before: painted with as they are, or refused where they lie."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import T5EncoderModel
from underpaint_backend.engine.exceptions import ModelBroken
from underpaint_backend.engine.library import LoadedModel
from underpaint_backend.engine.packing import bytes_of
from underpaint_backend.engine.precision import Storage
from underpaint_backend.models.catalog import Entry, find_models

from tests.backend.engine.pictures import difference, opened, painted

pytestmark = pytest.mark.usefixtures("extras")


def in_nf4(network: nn.Module, nested: bool) -> dict[str, Tensor]:
    """The weights as bitsandbytes' layers write them."""
    from bitsandbytes.nn import Linear4bit

    def layer(old: nn.Linear) -> nn.Module:
        new = Linear4bit(old.in_features, old.out_features, old.bias is not None, torch.float32, nested, "nf4")
        new.load_state_dict(old.state_dict())
        return new

    return replaced(network, layer)


def in_8_bits(network: nn.Module) -> dict[str, Tensor]:
    """The same, in 8 bits."""
    from bitsandbytes.nn import Linear8bitLt

    def layer(old: nn.Linear) -> nn.Module:
        new = Linear8bitLt(old.in_features, old.out_features, old.bias is not None, has_fp16_weights=False)
        new.load_state_dict(old.state_dict())
        return new

    return replaced(network, layer)


def replaced(network: nn.Module, layer: Callable[[nn.Linear], nn.Module]) -> dict[str, Tensor]:
    for name, module in list(network.named_modules()):
        if type(module) is nn.Linear:
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, layer(module).to("cpu"))
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def packed_copy(entry: Entry, to: Path, part: str, cls: Any, how: str) -> Entry:
    """A copy of a model, one part of which is packed: "nf4", "nf4 nested", "int8" or "torchao"."""
    shutil.copytree(entry.folder, to)
    folder = to / part
    (file,) = folder.glob("*.safetensors")
    network = cls.from_pretrained(folder)
    notes: dict[str, str] = {}
    if how == "torchao":
        from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(network, Int8WeightOnlyConfig())
        weights, notes = flatten_tensor_state_dict(
            {k: v.detach() if type(v) is not Tensor else v for k, v in network.state_dict().items()}
        )
        config: dict[str, Any] = {"quant_method": "torchao", "quant_type": "int8wo"}
    else:
        weights = in_8_bits(network) if how == "int8" else in_nf4(network, "nested" in how)
        config = {"quant_method": "bitsandbytes", "load_in_8bit": how == "int8", "load_in_4bit": how != "int8"}
    weights.pop("encoder.embed_tokens.weight", None)  # tied, and stored once
    save_file(weights, file, metadata=notes | {"format": "pt"})
    described = json.loads((folder / "config.json").read_text()) | {"quantization_config": config}
    (folder / "config.json").write_text(json.dumps(described))
    return replace(entry, folder=to, model=replace(entry.model, id=to.name))


PACKED = {"nf4": (0.1, 15.0), "nf4 nested": (0.1, 15.0), "int8": (0.01, 1.0), "torchao": (0.01, 1.0)}


@pytest.fixture(scope="module")
def plain_flux1(flux1: Entry) -> tuple[LoadedModel, NDArray[np.uint8]]:
    """It, and what it paints with its own weights."""
    model = opened(flux1)
    return model, painted(model)


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2"])
@pytest.mark.parametrize("how", PACKED)
def test_a_folder_that_was_packed_before_paints(
    flux1: Entry, plain_flux1: tuple[LoadedModel, NDArray[np.uint8]], tmp_path: Path, part: str, how: str
) -> None:
    """Nearly what the plain weights paint, on a CPU too; and it is not packed again."""
    cls = FluxTransformer2DModel if part == "transformer" else T5EncoderModel
    entry = packed_copy(flux1, tmp_path / "packed", part, cls, how)

    (plain, expected), model = plain_flux1, opened(entry)

    least, most = PACKED[how]
    assert (least if part == "transformer" else 0) < difference(painted(model), expected) < most
    parts = model.family.parts
    layers = [layer for layer in parts[part].modules() if hasattr(layer, "packed_bytes")]
    assert len(layers) > 10
    assert bytes_of(parts[part]) < 0.6 * bytes_of(plain.family.parts[part])
    assert parts.key(part).storage == Storage.FILED


def test_a_packing_that_is_not_read_is_named(flux1: Entry, tmp_path: Path) -> None:
    """And nothing is loaded."""
    entry = packed_copy(flux1, tmp_path / "packed", "transformer", FluxTransformer2DModel, "nf4")
    config = tmp_path / "packed" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))

    with pytest.raises(ModelBroken, match="packed by gptq, which is not read"):
        opened(entry)


@pytest.mark.parametrize(("how", "extra"), [("nf4", "bitsandbytes"), ("torchao", "torchao")])
def test_without_its_extra_a_packed_folder_says_so(
    flux1: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, extra: str
) -> None:
    """With the words that install it."""
    entry = packed_copy(flux1, tmp_path / "packed", "transformer", FluxTransformer2DModel, how)
    monkeypatch.setitem(sys.modules, extra, None)

    with pytest.raises(ModelBroken, match=rf"pip install 'underpaint\[{extra}\]'"):
        opened(entry)
    listed = find_models([tmp_path])[flux1.model.id].model
    assert listed.state == "unfit"
    assert f"its transformer is packed by {extra}" in listed.detail


def lying(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Tensor], str], None]:
    """Change what a state says of itself."""

    def lie(weights: dict[str, Tensor], name: str) -> None:
        key = f"{name}.quant_state.bitsandbytes__nf4"
        said = json.loads(bytes(weights[key].tolist()))
        change(said)
        weights[key] = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)

    return lie


def shortened(ending: str) -> Callable[[dict[str, Tensor], str], None]:
    """Take away half of a tensor."""

    def lie(weights: dict[str, Tensor], name: str) -> None:
        weights[name + ending] = weights[name + ending].flatten()[: weights[name + ending].numel() // 2].clone()

    return lie


LIES: dict[str, Callable[[dict[str, Tensor], str], None]] = {
    "more numbers": lying(lambda said: said.update(shape=[1 << 20, 1 << 20])),
    "another shape": lying(lambda said: said.update(shape=[*said["shape"][::-1], 1])),
    "no shape": lying(lambda said: said.update(shape=None)),
    "blocks of 0": lying(lambda said: said.update(blocksize=0)),
    "larger blocks": lying(lambda said: said.update(blocksize=4096)),
    "smaller blocks": lying(lambda said: said.update(blocksize=32)),
    "no such type": lying(lambda said: said.update(dtype="nonsense")),
    "fewer numbers": shortened(""),
    "fewer scales": shortened(".absmax"),
    "fewer levels": shortened(".quant_map"),
    "no JSON": lambda weights, name: weights.update(
        {f"{name}.quant_state.bitsandbytes__nf4": torch.zeros(9, dtype=torch.uint8)}
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_state_that_lies_is_refused(
    flux1: Entry, tmp_path: Path, lie: Callable[[dict[str, Tensor], str], None]
) -> None:
    """Native code would believe it and read what is not there."""
    entry = packed_copy(flux1, tmp_path / "packed", "transformer", FluxTransformer2DModel, "nf4")
    (file,) = (tmp_path / "packed" / "transformer").glob("*.safetensors")
    weights = load_file(file)
    lie(weights, "transformer_blocks.0.ff.net.2.weight")
    save_file(weights, file)

    with pytest.raises(ModelBroken):
        opened(entry)
