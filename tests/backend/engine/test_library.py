"""Loading models, and what can be wrong with them."""

from __future__ import annotations

import json
import random
import re
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file, save_file
from underpaint_backend.engine.cancel import Cancelled
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import BadFiles, ModelBroken
from underpaint_backend.engine.families import Family, family_class, names
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.precision import Memory
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.cancelling import SetAfter
from tests.backend.engine.tiny import build_tiny

UNET = Path("unet", "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """A model that nobody changes."""
    return build_tiny(tmp_path_factory.mktemp("pristine") / "tiny", 9)


@pytest.fixture
def entry(pristine: Entry, tmp_path: Path) -> Entry:
    """A copy of it for one test."""
    shutil.copytree(pristine.folder, tmp_path / "tiny")
    return replace(pristine, folder=tmp_path / "tiny")


@pytest.fixture
def library() -> Library:
    """A library with nothing in it."""
    return Library(open_device("cpu"))


def ignore(done: float) -> None:
    """Nobody listens."""


def test_a_loaded_model_stays_loaded(library: Library, entry: Entry) -> None:
    """Loading again returns the same model at once."""
    assert library.load(entry, ignore, Event()) is library.load(entry, ignore, Event())


def bytes_on_device(entry: Entry) -> int:
    """What a model's networks take on a CPU."""
    alone = Library(open_device("cpu"))
    alone.load(entry, ignore, Event())
    return alone.residency.bytes


def test_the_model_used_least_recently_makes_room(entry: Entry, tmp_path: Path) -> None:
    """Beyond the bound, in bytes, the model that was not used for longest is dropped."""
    library = Library(open_device("cpu"), Memory(limit=int(2.5 * bytes_on_device(entry))))
    copies = [replace(entry, folder=tmp_path / name, model=replace(entry.model, id=name)) for name in "abc"]
    for copy in copies:
        shutil.copytree(entry.folder, copy.folder)
    first, second, third = copies
    for wanted in (first, second, first, third):
        library.load(wanted, ignore, Event())

    assert "a" in library
    assert "b" not in library
    assert "c" in library
    assert library.residency.bytes <= library.residency.memory.limit  # type: ignore[operator]


def test_no_more_models_are_remembered_than_the_bound(
    library: Library, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one used least recently is forgotten, even if all have room because they share their networks."""
    monkeypatch.setattr("underpaint_backend.engine.library.MODELS", 2)
    for name in "abac":
        library.load(replace(entry, model=replace(entry.model, id=name)), ignore, Event())

    assert [name for name in "abc" if name in library] == ["a", "c"]
    assert library.residency.reads == 3


def test_two_models_that_fit_are_read_once_each(library: Library, entry: Entry, tmp_path: Path) -> None:
    """Going from one to the other and back reads nothing again."""
    shutil.copytree(entry.folder, tmp_path / "other")
    other = replace(entry, folder=tmp_path / "other", model=replace(entry.model, id="other"))
    for wanted in (entry, other, entry, other):
        library.load(wanted, ignore, Event())

    assert library.residency.reads == 2 * 3


def test_networks_with_the_same_weights_are_loaded_once(library: Library, entry: Entry, tmp_path: Path) -> None:
    """Two models whose text encoder and VAE are the same files share them; links lead to the same file."""
    other = replace(entry, folder=tmp_path / "other", model=replace(entry.model, id="other"))
    shutil.copytree(entry.folder, other.folder)
    for part in ("text_encoder", "vae"):
        for weights in (other.folder / part).glob("*.safetensors"):
            weights.unlink()
            weights.symlink_to(entry.folder / part / weights.name)
    first, second = (library.load(wanted, ignore, Event()).family.parts for wanted in (entry, other))

    assert first["vae"] is second["vae"]
    assert first["text_encoder"] is second["text_encoder"]
    assert first["unet"] is not second["unet"]
    assert library.residency.reads == 4


def test_a_model_that_has_no_room_at_once_is_loaded_when_it_is_needed(entry: Entry) -> None:
    """Networks go and come again, one after another, and what comes is what went."""
    size = bytes_on_device(entry)
    whole = Library(open_device("cpu")).load(entry, ignore, Event()).family.parts
    library = Library(open_device("cpu"), Memory(limit=size - 1000, precision="float32"))
    parts = library.load(entry, ignore, Event()).family.parts
    for _ in range(2):
        for name in parts.names:
            expected = list(whole[name].parameters())
            torch.testing.assert_close(list(parts[name].parameters()), expected, rtol=0, atol=0)
            assert library.residency.bytes < size - 1000

    assert library.residency.reads > 3


def test_loading_tells_how_far_it_is(library: Library, entry: Entry) -> None:
    """The parts are announced in order."""
    heard: list[float] = []
    library.load(entry, heard.append, Event())

    assert heard == sorted(heard)
    assert 0 < heard[-1] < 1


def test_loading_can_be_cancelled_anywhere(library: Library, entry: Entry) -> None:
    """Cancelled at random points of loading, a model loads as always afterwards."""
    never = SetAfter(float("inf"))
    expected = weights_of(library.load(entry, ignore, never))

    for point in random.Random(0).sample(range(never.asked), 6):
        library.clear()
        with pytest.raises(Cancelled):
            library.load(entry, ignore, SetAfter(point))
        assert "tiny" not in library
        torch.testing.assert_close(weights_of(library.load(entry, ignore, Event())), expected, rtol=0, atol=0)


def weights_of(model: LoadedModel) -> list[torch.Tensor]:
    """All weights of a model."""
    return [parameter for network in model.family.networks for parameter in network.parameters()]


def test_half_precision_files_are_found(library: Library, entry: Entry) -> None:
    """A folder that holds only fp16 variants is loaded, in the precision of the device."""
    for weights in entry.folder.glob("*/*.safetensors"):
        halved = {key: value.half() for key, value in load_file(weights).items()}
        save_file(halved, weights.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        weights.unlink()

    model = library.load(entry, ignore, Event())

    assert {parameter.dtype for network in model.family.networks for parameter in network.parameters()} == {
        torch.float32
    }


def truncated(folder: Path) -> None:
    """Half a file."""
    weights = folder / UNET
    weights.write_bytes(weights.read_bytes()[:2000])


def pickled(folder: Path) -> None:
    """Weights as a pickle, which could run anything."""
    torch.save(load_file(folder / UNET), folder / "unet" / "diffusion_pytorch_model.bin")
    (folder / UNET).unlink()


def incomplete(folder: Path, part: str, name: str) -> None:
    """A file that lacks a weight."""
    weights = folder / part / name
    tensors = load_file(weights)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, weights, metadata={"format": "pt"})


def without_text_weights(folder: Path) -> None:
    """A text encoder that lacks a weight, which its library would make up."""
    incomplete(folder, "text_encoder", "model.safetensors")


def without_unet_weights(folder: Path) -> None:
    """A UNet that lacks a weight."""
    incomplete(folder, *map(str, (UNET.parent, UNET.name)))


def without_scheduler(folder: Path) -> None:
    """No noise levels."""
    shutil.rmtree(folder / "scheduler")


def for_instructions(folder: Path) -> None:
    """A UNet of another kind, with 8 channels."""
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": 8}))
    tensors = load_file(folder / UNET)
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:, :8].contiguous()
    save_file(tensors, folder / UNET, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "damage",
    [truncated, pickled, without_text_weights, without_unet_weights, without_scheduler, for_instructions],
)
def test_broken_models_say_so(library: Library, entry: Entry, damage: Callable[[Path], None]) -> None:
    """Whatever is wrong with the files, the error is the same one, and a pickle is never opened."""
    damage(entry.folder)

    with pytest.raises(ModelBroken) as caught:
        library.load(entry, ignore, Event())

    assert caught.value.info.code == "model_broken"
    assert entry.model.name in caught.value.info.message
    assert str(entry.folder) not in caught.value.info.message
    assert "tiny" not in library


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("unet", "it has no unet"),
        ("unet/config.json", "unet has no config.json"),
        ("scheduler/scheduler_config.json", "scheduler has no scheduler_config.json"),
    ],
)
def test_what_is_missing_is_said_in_words(library: Library, entry: Entry, gone: str, words: str) -> None:
    """And not in those of the operating system."""
    path = entry.folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    with pytest.raises(ModelBroken, match=rf"{re.escape(words)}\.?$"):
        library.load(entry, ignore, Event())


def lying(weights: Path) -> None:
    """A header of 600 MiB, it says, in a file that has room for it and takes none on the disk."""
    with weights.open("wb") as file:
        file.write((600 << 20).to_bytes(8, "little"))
        file.truncate(1 << 30)


def no_json(weights: Path) -> None:
    """A header of other words."""
    weights.write_bytes((8).to_bytes(8, "little") + b"{rubbish")


def a_list(weights: Path) -> None:
    """A header that is JSON, and no object."""
    weights.write_bytes((8).to_bytes(8, "little") + b"[1, 2,3]")


def renamed_pickle(weights: Path) -> None:
    """Weights as a pickle that has the name of another kind."""
    tensors = load_file(weights)
    weights.unlink()
    torch.save(tensors, weights)


PART_FILES = [UNET, Path("text_encoder", "model.safetensors"), Path("vae", UNET.name)]


@pytest.mark.parametrize("weights", PART_FILES, ids=lambda path: path.parent.name)
@pytest.mark.parametrize(
    ("damage", "words"),
    [(lying, "would have 629145600 bytes"), (no_json, "JSON"), (a_list, "brace"), (renamed_pickle, "pickle")],
)
@pytest.mark.parametrize("memory", [Memory(), Memory(precision="fp8"), Memory(offload="group")], ids=repr)
def test_no_header_is_believed(
    entry: Entry, weights: Path, damage: Callable[[Path], None], words: str, memory: Memory
) -> None:
    """It is looked at before anything is loaded, no more of it than there can be, and people are told what it is."""
    damage(entry.folder / weights)
    library = Library(open_device("cpu"), memory)

    tracemalloc.start()
    try:
        with pytest.raises(ModelBroken) as caught:
            library.load(entry, ignore, Event())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    message = caught.value.info.message
    assert weights.as_posix() in message
    assert words in message
    assert "Error" not in message
    assert str(entry.folder) not in message
    assert peak < 32 << 20
    assert library.residency.reads == 0


def test_a_header_that_becomes_damaged_says_so_when_it_is_read_again(library: Library, entry: Entry) -> None:
    """A file may be another one by the time that its network is wanted once more."""
    parts = library.load(entry, ignore, Event()).family.parts
    library.residency.clear()
    lying(entry.folder / UNET)

    with pytest.raises(BadFiles, match=r"unet/diffusion_pytorch_model\.safetensors: it is not in"):
        _ = parts["unet"]


def test_a_description_that_does_not_fit_says_so(library: Library, entry: Entry) -> None:
    """Sizes must be multiples of the VAE's cells."""
    with pytest.raises(ModelBroken, match="multiple"):
        library.load(replace(entry, model=replace(entry.model, size_multiple=6)), ignore, Event())


@pytest.mark.parametrize("name", ["nothing", "os", "../stable_diffusion", "stable_diffusion.x", "__init__"])
def test_unknown_families_say_so(name: str) -> None:
    """A family is a module of the package and nothing else."""
    with pytest.raises(BadFiles):
        family_class(name)


def test_each_module_of_families_is_a_family() -> None:
    """Every module in the package can be loaded by its name."""
    assert "stable_diffusion" in names()
    for name in names():
        assert issubclass(family_class(name), Family)
