"""Weights in 8 and 4 bits: near the true ones and not the same, on the fly and from files, and in all that is done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from underpaint_backend.engine.cancel import Cancelled
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library
from underpaint_backend.engine.lora import LoraRack
from underpaint_backend.engine.packing import Pack, bytes_of
from underpaint_backend.engine.precision import BYTES, Memory, Precision, Storage
from underpaint_backend.engine.quantisation import CannotQuantise, in_int8, in_nf4, refuse_unusable
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.pictures import difference, opened, painted
from tests.backend.engine.tiny import build_tiny

pytestmark = pytest.mark.usefixtures("extras")

CPU = torch.device("cpu")
BOUNDS: dict[Precision, tuple[float, float]] = {"int8": (1e-3, 0.02), "nf4": (0.03, 0.12)}
"""What numbers of a normal distribution lose, relative: at least and at most. 8 bits have 127 steps to each side, nf4
has 16 levels in all (its authors give no figure; 0.09 was measured, and twice as much where bitsandbytes is wrong)."""


@pytest.mark.parametrize(("precision", "pack"), [("int8", in_int8), ("nf4", in_nf4)])
@pytest.mark.parametrize("shape", [(48, 80), (20, 12, 3, 3), (7, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_loses_a_little(
    precision: Precision, pack: Callable[[torch.device], Pack], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Layers and kernels come back in their shape and precision, near what they were, and their bytes are counted."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).mul(0.02).to(dtype)

    packed = pack(CPU)(lambda: weight)
    found = packed.unpack()

    least, most = BOUNDS[precision]
    lost = float((found.float() - weight.float()).norm() / weight.float().norm())
    assert least < lost < most
    assert (found.shape, found.dtype) == (weight.shape, weight.dtype)
    plain = BYTES[Storage[precision.upper()]] * weight.numel()
    assert plain <= packed.bytes <= plain + 4 * (shape[0] + 1)


@pytest.mark.parametrize(("precision", "least", "most"), [("int8", 0.02, 1.0), ("nf4", 0.5, 12.0)])
def test_a_picture_differs_a_little(flux1: Entry, precision: Precision, least: float, most: float) -> None:
    """Text encoders and the transformer are packed, the VAE is not, and it is nearly the picture of plain weights."""
    plain = opened(flux1)
    expected = painted(plain)
    model = opened(flux1, Memory(precision=precision))

    found = painted(model)

    assert least < difference(found, expected) < most
    parts = model.family.parts
    packed = {name: any(hasattr(layer, "packed_bytes") for layer in parts[name].modules()) for name in parts.names}
    assert packed == {"text_encoder": True, "text_encoder_2": True, "transformer": True, "vae": False}
    taken = sum(bytes_of(parts[name]) for name in parts.names)
    assert parts.residency.bytes == taken < 0.65 * plain.family.parts.residency.bytes
    assert np.array_equal(painted(model), found)
    assert not model.ladder.reached


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_unet_is_packed_with_its_kernels(tmp_path: Path, precision: Precision) -> None:
    """Most weights of Stable Diffusion are kernels of convolutions."""
    entry = build_tiny(tmp_path / "sd", 4)
    unet: Any = opened(entry, Memory(precision=precision)).family.parts["unet"]

    layers = [layer for layer in unet.modules() if hasattr(layer, "packed_bytes")]

    assert {type(layer) for layer in layers} == {nn.Linear, nn.Conv2d}
    least, most = {"int8": (0.01, 0.5), "nf4": (0.3, 8.0)}[precision]
    assert least < difference(painted(opened(entry)), painted(opened(entry, Memory(precision=precision)))) < most


def test_memory_that_is_short_is_no_reason_to_pack_again(flux1: Entry) -> None:
    """What was chosen is not packed as fp8; below it, layers are fetched."""
    ladder = opened(flux1, Memory(precision="nf4")).ladder

    assert ladder.parts.storage == Storage.NF4
    assert not ladder._pack(Storage.FP8)
    assert ladder._pack(Storage.FETCHED)


def lora_of(folder: Path, shape: tuple[int, int]) -> Path:
    """A LoRA for a tiny FLUX.1 of one layer, which changes much."""
    torch.manual_seed(5)
    name = "transformer.single_transformer_blocks.0.attn.to_q"
    more = "transformer.single_transformer_blocks.0.proj_mlp"
    tensors = {
        f"{layer}.lora_{half}.weight": torch.randn(2, 32) if half == "A" else torch.randn(out, 2)
        for layer, out in ((name, shape[0]), (more, shape[1]))
        for half in "AB"
    }
    path = folder / "strong.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_packed_model_wears_loras(flux1: Entry, tmp_path: Path, precision: Precision) -> None:
    """The picture is another while it is worn, and the same to the bit before and after."""
    model, path = opened(flux1, Memory(precision=precision)), lora_of(tmp_path, (32, 128))
    before, parts = painted(model), model.family.parts

    with LoraRack().worn("tiny", "flux1", parts, [(path, 1.0)]) as worn:
        parts.dress = worn.dress
        dressed = painted(model)
        parts.dress = None

    assert difference(dressed, before) > 1
    assert np.array_equal(painted(model), before)


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_loading_is_cancelled(flux1: Entry, precision: Precision) -> None:
    """In the middle of packing, and afterwards the model is loaded as ever."""
    library, cancelled = Library(open_device("cpu"), Memory(precision=precision)), Event()
    reads: list[float] = []

    def on_part(fraction: float) -> None:
        reads.append(fraction)
        if len(reads) == 5:  # before the last network, which is packed as it is read
            cancelled.set()

    with pytest.raises(Cancelled):
        library.load(flux1, on_part, cancelled)
    assert len(reads) == 5
    assert library.residency.reads == 4
    assert flux1.model.id not in library

    model = library.load(flux1, lambda fraction: None, Event())
    assert np.array_equal(painted(model), painted(opened(flux1, Memory(precision=precision))))


@pytest.mark.parametrize(("precision", "extra"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_an_extra_that_is_missing_is_named(
    flux1: Entry, monkeypatch: pytest.MonkeyPatch, precision: Precision, extra: str
) -> None:
    """With the words that install it; no other precision needs it."""
    monkeypatch.setitem(sys.modules, extra, None)  # as if it were not installed
    library = Library(open_device("cpu"), Memory(precision=precision))

    with pytest.raises(CannotQuantise) as caught:
        library.load(flux1, lambda fraction: None, Event())

    assert caught.value.info.code == "precision_unavailable"
    assert f"pip install 'underpaint[{extra}]'" in caught.value.info.message
    refuse_unusable("fp8", library.device)


def test_a_device_that_cannot_do_it_is_named(flux1: Entry) -> None:
    """It is tried, on a device that has no numbers: whatever the library raises there is in the words."""
    device = replace(open_device("cpu"), torch_device=torch.device("meta"), name="the moon")

    for precision in ("int8", "nf4"):
        with pytest.raises(CannotQuantise, match="the moon"):
            refuse_unusable(precision, device)  # type: ignore[arg-type]
