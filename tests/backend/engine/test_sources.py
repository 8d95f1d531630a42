"""Where the parts of a model come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import ModelBroken
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, paint
from underpaint_backend.engine.precision import Memory, Storage
from underpaint_backend.engine.sources import FolderSource
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.tiny import add_ip_adapter, build_tiny

PAINTING = Painting(
    (64, 64), "a dog", "a cat", 3.0, "ddim", 2, 1.0, [1], references=(np.full((32, 32, 3), 200, np.uint8),)
)


MEMORIES = {Storage.PLAIN: Memory(), Storage.FP8: Memory(precision="fp8"), Storage.FETCHED: Memory(offload="group")}


def loaded(entry: Entry, memory: Memory | None = None) -> LoadedModel:
    """The model in a library that is new."""
    return Library(open_device("cpu"), memory).load(entry, lambda fraction: None, Event())


def painted(entry: Entry, memory: Memory | None = None) -> np.ndarray:
    """What a library that is new paints with a model."""
    return paint(loaded(entry, memory), PAINTING, Observer(lambda phase: None, lambda step: None), Event())


def scattered(entry: Entry, folder: Path) -> Entry:
    """The model, with its image encoder in another folder and its adapter as a file beside others."""
    (folder / "models").mkdir(parents=True)
    (entry.folder / "image_encoder").rename(folder / "models" / "image_encoder")
    [adapter] = (entry.folder / "ip_adapter").glob("*.safetensors")
    adapter.rename(folder / "models" / "ip-adapter.safetensors")
    (folder / "models" / "ip-adapter-other.safetensors").write_bytes(b"not this one")
    (entry.folder / "ip_adapter").rmdir()
    places = {"image_encoder": folder / "models/image_encoder", "ip_adapter": folder / "models/ip-adapter.safetensors"}
    return replace(entry, elsewhere=places)


def test_parts_may_lie_elsewhere(tmp_path: Path) -> None:
    """A model of two repositories is the same model."""
    entry = add_ip_adapter(build_tiny(tmp_path / "whole", 4))
    whole = painted(entry)
    np.testing.assert_array_equal(painted(scattered(entry, tmp_path / "other")), whole)


@pytest.mark.parametrize("storage", MEMORIES)
def test_parts_elsewhere_are_kept_as_all_others(tmp_path: Path, storage: Storage) -> None:
    """However weights are kept, those of a UNet, an image encoder and an adapter that lie elsewhere are found."""
    entry = add_ip_adapter(build_tiny(tmp_path / "whole", 4))
    plain, whole = painted(entry), painted(entry, MEMORIES[storage])
    entry = scattered(entry, tmp_path / "other")
    (entry.folder / "unet").rename(tmp_path / "other" / "models" / "unet")
    entry = replace(entry, elsewhere={**entry.elsewhere, "unet": tmp_path / "other/models/unet"})
    found = painted(entry, MEMORIES[storage])

    np.testing.assert_array_equal(found, whole)
    assert np.abs(found.astype(int) - plain).mean() < (4 if storage != Storage.PLAIN else 1e-9)
    parts = loaded(entry, MEMORIES[storage]).family.parts
    assert parts.storage == storage
    sizes = {name: parts.bytes_of(name) for name in entry.elsewhere}
    if storage == Storage.FETCHED:
        assert not any(sizes.values())  # they are not on the device
    else:
        assert all(sizes.values())


def test_the_files_of_weights_are_those_that_are_loaded(tmp_path: Path) -> None:
    """In the model's own folder, in another one, or one file beside others; none for what is not there."""
    entry = scattered(add_ip_adapter(build_tiny(tmp_path / "whole", 4)), tmp_path / "other")
    source = FolderSource(entry.folder, entry.elsewhere)

    assert source.weight_files("unet") == sorted((entry.folder / "unet").glob("*.safetensors"))
    encoder = sorted((tmp_path / "other/models/image_encoder").glob("*.safetensors"))
    assert source.weight_files("image_encoder") == encoder != []
    assert source.weight_files("ip_adapter") == [tmp_path / "other/models/ip-adapter.safetensors"]
    assert source.weight_files("nothing") == []


def test_a_damaged_part_elsewhere_says_so_without_its_path(tmp_path: Path) -> None:
    """The path of a folder is nobody's business."""
    entry = scattered(add_ip_adapter(build_tiny(tmp_path / "whole", 4)), tmp_path / "other")
    entry.elsewhere["ip_adapter"].write_bytes(b"rubbish")
    with pytest.raises(ModelBroken) as caught:
        painted(entry)
    assert "ip-adapter.safetensors" in caught.value.info.message
    assert str(tmp_path) not in caught.value.info.message
    assert "Error" not in caught.value.info.message
