"""Models in GGUF files: found, listed and painted with, near what the true weights paint, and not the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from numpy.typing import NDArray
from parities.tiny_flux2 import build_tiny_flux2
from safetensors.torch import load_file, save_file
from torch import Tensor
from underpaint_backend.engine.cancel import Cancelled
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import BadFiles, ModelBroken
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.lora import LoraRack
from underpaint_backend.engine.packing import bytes_of
from underpaint_backend.engine.precision import Memory, Storage
from underpaint_backend.models import recognise
from underpaint_backend.models.catalog import Entry, find_models
from underpaint_backend.models.folder_list import add_folder
from underpaint_backend.models.folders import folder_entries, sister_among

from tests.backend.engine.gguf_models import write_gguf
from tests.backend.engine.pictures import difference, opened, painted
from tests.backend.engine.single_files import FolderOnly, without_weights
from tests.backend.models import original

pytestmark = pytest.mark.usefixtures("extras")


@pytest.fixture(scope="module")
def flux2(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """A tiny FLUX.2 [klein] in diffusers' layout, which lends its text encoder and VAE."""
    return build_tiny_flux2(tmp_path_factory.mktemp("flux2") / "klein", "klein")[0]


@pytest.fixture(scope="module")
def tiny_pack(flux2: Entry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pack for models as small as the tiny one, for which there is none."""
    pack = without_weights(flux2.folder, tmp_path_factory.mktemp("packs") / "tiny")
    model = flux2.model
    defaults = {name: getattr(model, name) for name in ("family", "tasks", "native_area", "size_multiple")}
    defaults |= {f"default_{name}": getattr(model, f"default_{name}") for name in ("steps", "guidance", "scheduler")}
    (pack / "defaults.json").write_text(json.dumps(defaults))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(recognise._FLUX2_SIZES, (32, 48), ("tiny", "Tiny FLUX.2"))
        monkeypatch.setattr(recognise, "PACKS", pack.parent)
        yield pack


@pytest.fixture(scope="module")
def plain_flux2(flux2: Entry) -> tuple[LoadedModel, NDArray[np.uint8]]:
    """It, and what it paints with its own weights."""
    model = opened(flux2)
    return model, painted(model)


def transformer_of(folder: Path) -> dict[str, Tensor]:
    """The transformer's weights by diffusers' names."""
    (file,) = (folder / "transformer").glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize(("kind", "least", "most"), [("Q8_0", 0.01, 2.0), ("Q4_0", 0.2, 25.0)])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_gguf_file_in_an_added_folder_paints(
    flux2: Entry,
    plain_flux2: tuple[LoadedModel, NDArray[np.uint8]],
    tiny_pack: Path,
    tmp_path: Path,
    kind: str,
    least: float,
    most: float,
    prefix: str,
) -> None:
    """It is found by its header, borrows what it lacks, and paints nearly what the plain weights paint."""
    name = f"some-{kind}.gguf"
    (tmp_path / "ComfyUI" / "models" / "unet").mkdir(parents=True)
    weights = original.flux2(transformer_of(flux2.folder), prefix)
    path = write_gguf(tmp_path / "ComfyUI" / "models" / "unet" / name, weights, kind)
    contents = folder_entries(sister_among([flux2]), [tmp_path / "ComfyUI"])
    assert contents.broken == ()
    (entry,) = contents.entries
    assert (entry.model.state, entry.checkpoint, entry.folder) == ("ready", path, flux2.folder)
    assert entry.model.memory == pytest.approx(path.stat().st_size, rel=0.1)

    (plain, expected), model = plain_flux2, opened(entry)

    assert least < difference(painted(model), expected) < most
    parts = model.family.parts
    transformer: Any = parts["transformer"]
    assert sum(hasattr(layer, "packed_bytes") for layer in transformer.modules()) > 20
    assert parts.bytes_of("transformer") < bytes_of(plain.family.parts["transformer"]) * (0.4 if "8" in kind else 0.25)
    assert parts.residency.bytes == sum(bytes_of(parts[part]) for part in parts.names)


def test_a_worker_finds_a_gguf_file(
    flux2: Entry, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the list that it looks a job's model up in."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    (tmp_path / "unet").mkdir()
    write_gguf(tmp_path / "unet" / "some.gguf", original.flux2(transformer_of(flux2.folder)), "Q8_0")
    add_folder(tmp_path / "unet")

    entry = find_models([flux2.folder.parent])["file/some"]

    assert painted(opened(entry)).shape == (1, 64, 64, 3)


def test_without_the_extra_a_gguf_file_is_listed_and_says_so(
    flux2: Entry, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the words that install it; who loads it all the same is told so, too."""
    write_gguf(tmp_path / "some.gguf", original.flux2(transformer_of(flux2.folder)), "Q8_0")
    monkeypatch.setitem(sys.modules, "gguf", None)  # as if it were not installed

    (entry,) = folder_entries(sister_among([flux2]), [tmp_path]).entries

    assert entry.model.state == "unfit"
    assert entry.model.detail == (
        "its weights are in a GGUF file, for which there is a library; "
        "install it with: .venv/bin/pip install 'underpaint[gguf]'"
    )
    with pytest.raises(ModelBroken, match=r"underpaint\[gguf\]"):
        opened(replace(entry, folder=flux2.folder, pack=tiny_pack))


@pytest.fixture(scope="module")
def klein_gguf(flux2: Entry, tiny_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """The tiny FLUX.2 as a GGUF file."""
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(folder / "some.gguf", original.flux2(transformer_of(flux2.folder)), "Q8_0")
    (entry,) = folder_entries(sister_among([flux2]), [folder]).entries
    return entry


@pytest.fixture(scope="module")
def filed(klein_gguf: Entry) -> tuple[LoadedModel, NDArray[np.uint8]]:
    """It, and what it paints."""
    model = opened(klein_gguf)
    return model, painted(model)


def test_a_gguf_model_wears_loras(filed: tuple[LoadedModel, NDArray[np.uint8]], tmp_path: Path) -> None:
    """The picture is another while it is worn, and the same to the bit before and after."""
    torch.manual_seed(5)
    layer = "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"
    rows = 3 * 32 + 2 * 96
    path = tmp_path / "strong.safetensors"
    save_file({f"{layer}.lora_A.weight": torch.randn(2, 32), f"{layer}.lora_B.weight": torch.randn(rows, 2)}, path)
    model, before = filed
    parts = model.family.parts

    with LoraRack().worn("tiny", "flux2", parts, [(path, 1.0)]) as worn:
        parts.dress = worn.dress
        dressed = painted(model)
        parts.dress = None

    assert difference(dressed, before) > 1
    assert np.array_equal(painted(model), before)


def test_loading_a_gguf_file_is_cancelled(klein_gguf: Entry, filed: tuple[LoadedModel, NDArray[np.uint8]]) -> None:
    """While its tensors are read, and afterwards it is loaded as ever."""
    library, cancelled, reads = Library(open_device("cpu")), Event(), list[float]()

    def on_part(fraction: float) -> None:
        reads.append(fraction)
        if library.residency.reads == 2:  # the transformer is the last
            cancelled.set()

    with pytest.raises(Cancelled):
        library.load(klein_gguf, on_part, cancelled)
    assert library.residency.reads == 3

    assert np.array_equal(painted(library.load(klein_gguf, lambda fraction: None, Event())), filed[1])


@pytest.mark.parametrize(
    "memory", [Memory(precision="fp8"), Memory(precision="int8"), Memory(offload="group")], ids=repr
)
def test_what_a_file_has_quantised_is_not_packed_again(
    klein_gguf: Entry, filed: tuple[LoadedModel, NDArray[np.uint8]], memory: Memory
) -> None:
    """Whatever is chosen or memory asks for, the transformer's weights stay as they are; the text encoder's do not."""
    model = opened(klein_gguf, memory)

    parts = model.family.parts
    assert parts.key("transformer").storage == Storage.FILED
    assert parts.key("text_encoder").storage != Storage.PLAIN
    for layer, same in zip(parts["transformer"].modules(), filed[0].family.parts["transformer"].modules(), strict=True):
        assert getattr(layer, "packed_bytes", None) == getattr(same, "packed_bytes", None)
    assert difference(painted(model), filed[1]) < 5


def test_the_ladder_steps_over_it(klein_gguf: Entry) -> None:
    """Where memory is short, its rungs change what can be changed, and the picture is still made."""
    model = opened(klein_gguf)
    ladder, key = model.ladder, model.family.parts.key("transformer")

    assert ladder._pack(Storage.FP8)
    assert model.family.parts.key("transformer") == key
    assert painted(model).any()
    assert ladder._pack(Storage.FETCHED)
    assert model.family.parts.key("transformer") == key
    assert painted(model).any()


def test_a_file_that_was_cut_after_it_was_listed_is_broken(klein_gguf: Entry, tmp_path: Path) -> None:
    """The error has the file's name and not its path."""
    assert klein_gguf.checkpoint is not None
    path = tmp_path / "cut.gguf"
    path.write_bytes(klein_gguf.checkpoint.read_bytes()[:-100])

    with pytest.raises(ModelBroken, match=r"cut\.gguf: it is cut off: \d+ of its") as caught:
        opened(replace(klein_gguf, checkpoint=path))
    assert str(tmp_path) not in str(caught.value)


def test_a_transformer_that_lacks_weights_is_broken(flux2: Entry, tiny_pack: Path, tmp_path: Path) -> None:
    """Nothing is made up."""
    weights = original.flux2(transformer_of(flux2.folder))
    write_gguf(tmp_path / "some.gguf", {k: v for k, v in weights.items() if k != "txt_in.weight"}, "Q8_0")
    source = FolderOnly(tmp_path / "some.gguf", flux2.folder)

    with pytest.raises(BadFiles, match="a model of an unknown family"):
        source.quantised_network("transformer", FluxTransformer2DModel, torch.float32, torch.device("cpu"), waits=False)

    write_gguf(tmp_path / "some.gguf", {k: v for k, v in weights.items() if "single_blocks.1.linear2" not in k}, "Q8_0")
    (entry,) = folder_entries(sister_among([flux2]), [tmp_path]).entries
    with pytest.raises(ModelBroken, match=r"linear2|to_out"):
        opened(entry)
