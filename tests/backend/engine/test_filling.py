"""Networks that are filled weight by weight: they are the same, and never in memory as a whole."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from parities.tiny_flux1 import build_tiny_flux1
from parities.tiny_flux2 import build_tiny_flux2
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel
from underpaint_backend.engine import filling
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import BadFiles
from underpaint_backend.engine.families import Family, family_class
from underpaint_backend.engine.filling import filled, streamed
from underpaint_backend.engine.packing import Pack, Unread, bytes_of, in_fp8, on_disk, pack_layers
from underpaint_backend.engine.precision import Memory
from underpaint_backend.engine.residency import Residency
from underpaint_backend.engine.single_file import SingleFileSource
from underpaint_backend.engine.sources import FolderSource

from tests.backend.engine.single_files import original_sd
from tests.backend.engine.tiny import build_tiny, build_tiny_xl

CPU = torch.device("cpu")
PROMPT = "a red circle"
FAMILIES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "sd": ("stable_diffusion", lambda folder: build_tiny(folder, 4)),
    "sdxl": ("stable_diffusion_xl", lambda folder: build_tiny_xl(folder, 4)),
    "flux1": ("flux1", lambda folder: build_tiny_flux1(folder, "schnell")),
    "redux": ("flux1", lambda folder: build_tiny_flux1(folder, "redux")),
    "klein": ("flux2", lambda folder: build_tiny_flux2(folder, "klein")),
    "dev": ("flux2", lambda folder: build_tiny_flux2(folder, "dev")),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_network_of_a_folder_can_be_read_layer_by_layer(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU what is not read as a whole needs no room, and says the same to the bit: encoders, too."""
    monkeypatch.setattr(filling, "SMALLEST", 1)  # these are tiny
    family, build = FAMILIES[name]
    build(tmp_path)

    def kept(memory: Memory) -> Family:
        with Residency(open_device("cpu"), memory).shared():
            return family_class(family).load(FolderSource(tmp_path), open_device("cpu"), lambda done: None)

    plain, fetched = kept(Memory()), kept(Memory(offload="group"))
    with torch.inference_mode():
        expected, found = plain.encode_prompt(PROMPT), fetched.encode_prompt(PROMPT)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for part in set(fetched.parts.names) - {"vae"}:
        layers = [layer for layer in fetched.parts[part].modules() if hasattr(layer, "packed_bytes")]
        assert layers, part
        assert sum(layer.packed_bytes for layer in layers) == 0
        kept_bytes = sum(weight.nbytes for weight in plain.parts[part].state_dict().values())
        assert bytes_of(fetched.parts[part]) < kept_bytes


def test_a_network_is_never_there_as_a_whole() -> None:
    """While it is read, one layer is in full precision at a time."""
    layers, side = 12, 128
    network = nn.Sequential(*(nn.Linear(side, side, bias=False) for _ in range(layers)))
    values = network.state_dict()
    alive: set[int] = set()
    most = 0

    def unread(name: str) -> Unread:
        def read(dtype: torch.dtype) -> Tensor:
            nonlocal most
            tensor: Tensor = values[name].to(dtype, copy=True)
            alive.add(number := len(alive_ever))
            alive_ever.append(name)
            weakref.finalize(tensor, alive.discard, number)
            most = max(most, len(alive))
            return tensor

        return Unread(tuple(values[name].shape), read)

    for pack in (in_fp8(CPU), on_disk(CPU)):
        alive_ever: list[str] = []
        empty_one = nn.Sequential(*(nn.Linear(side, side, bias=False, device="meta") for _ in range(layers)))
        found = streamed("some", empty_one, {name: unread(name) for name in values}, torch.float32, CPU, pack)
        torch.testing.assert_close(found(torch.ones(1, side)), network(torch.ones(1, side)), rtol=0.1, atol=0.1)
        assert set(alive_ever) == set(values)
        assert most <= 2
        assert not alive


def test_what_is_there_under_two_names_is_read_once(tmp_path: Path) -> None:
    """T5's words are a large table."""
    build_tiny_flux1(tmp_path, "schnell")
    apart = FolderSource(tmp_path).unread("text_encoder_2", T5EncoderModel, torch.float32)
    assert apart is not None
    network, weights = apart
    read: list[str] = []

    def noted(name: str, weight: Unread) -> Unread:
        def read_noted(dtype: torch.dtype) -> Tensor:
            read.append(name)
            return weight.read(dtype)

        return replace(weight, read=read_noted)

    found: Any = filled(
        "some", network, {k: noted(k, v) for k, v in weights.items()}, torch.float32, CPU, lambda _: None
    )
    assert found.shared.weight is found.encoder.embed_tokens.weight
    assert sorted(read) == sorted(set(read))


def test_encoders_that_overflow_in_half_precision_are_left_to_their_library(tmp_path: Path) -> None:
    """It keeps some of T5's layers in single precision."""
    build_tiny_flux1(tmp_path, "schnell")
    source = FolderSource(tmp_path)
    assert source.unread("text_encoder_2", T5EncoderModel, torch.float16) is None
    assert source.unread("text_encoder_2", T5EncoderModel, torch.bfloat16) is not None
    assert source.unread("text_encoder", CLIPTextModel, torch.float16) is not None


@pytest.mark.parametrize(
    ("weights", "words"),
    [({}, "some lacks 1 weights, such as weight"), ({"weight": Unread.of(torch.zeros(2, 3))}, r"\(2, 3\)")],
)
def test_gaps_and_misfits_are_named(weights: Mapping[str, Unread], words: str) -> None:
    """Nothing is made up."""
    with pytest.raises(BadFiles, match=words):
        streamed("some", nn.Linear(2, 2, bias=False), weights, torch.float32, CPU, on_disk(CPU))


@pytest.mark.parametrize("pack", [in_fp8, on_disk], ids=["fp8", "fetched"])
def test_packed_layers_take_no_room_where_the_network_goes(pack: Callable[[torch.device], Pack]) -> None:
    """What stands for a weight between its passes is one number, also once the network is on its device."""
    meta = torch.device("meta")
    weights = {"weight": Unread.of(torch.ones(128, 128))}
    streaming = streamed("some", nn.Linear(128, 128, bias=False), weights, torch.float32, meta, pack(CPU))
    whole = nn.Sequential(nn.Linear(128, 128, bias=False))
    pack_layers(whole, pack(CPU), meta)
    for network in (streaming, whole):
        moved = network.to(meta)
        assert [weight.stride() for weight in moved.parameters()] == [(0, 0)]


@pytest.mark.parametrize("name", ["flux1", "klein", "dev"])
def test_all_is_in_the_precision_that_its_library_gives_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a network makes itself: places in prompts are reckoned in single precision."""
    monkeypatch.setattr(filling, "SMALLEST", 1)
    family, build = FAMILIES[name]
    build(tmp_path)

    def kept(memory: Memory) -> Family:
        device = memory.device(open_device("cpu"))
        with Residency(device, memory).shared():
            return family_class(family).load(FolderSource(tmp_path), device, lambda done: None)

    plain, fetched = kept(Memory(precision="bfloat16")), kept(Memory(precision="bfloat16", offload="group"))
    for part in set(plain.parts.names) - {"vae"}:
        expected = {key: value.dtype for key, value in (*tensors_of(plain.parts[part]),)}
        assert {key: value.dtype for key, value in (*tensors_of(fetched.parts[part]),)} == expected, part
    with torch.inference_mode():
        expected_prompt, found = plain.encode_prompt(PROMPT), fetched.encode_prompt(PROMPT)
    torch.testing.assert_close(found, expected_prompt, rtol=0, atol=0)


def tensors_of(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def test_a_file_that_is_written_anew_takes_nothing_from_memory(tmp_path: Path) -> None:
    """What comes from a single file is read, and not mapped: a process dies that reads beyond the end of a mapping."""
    folder = build_tiny(tmp_path / "folder", 4).folder
    path = tmp_path / "model.safetensors"
    save_file(original_sd(folder), path)
    source = SingleFileSource(path, folder)
    apart = source.unread("unet", UNet2DConditionModel, torch.float32)
    assert apart is not None
    _, weights = apart
    expected = UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    assert weights.keys() == expected.keys()
    for key, weight in weights.items():
        assert torch.equal(weight.read(torch.float32), expected[key]), key
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadFiles, match="ends too early"):
        weights["conv_in.weight"].read(torch.float32)
