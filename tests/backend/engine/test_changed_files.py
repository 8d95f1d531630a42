"""Files that become others while their model is loaded, as when weights are mended or trained on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import ModelBroken, NotFinite
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.pictures import opened, painted
from tests.backend.engine.single_files import original_sd, without_weights
from tests.backend.engine.tiny import build_tiny

UNET = Path("unet", "diffusion_pytorch_model.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Entry:
    """A model in a folder."""
    return build_tiny(tmp_path / "tiny", 4)


@pytest.fixture
def file(folder: Entry, tmp_path: Path) -> Entry:
    """The same in one file."""
    save_file(original_sd(folder.folder), tmp_path / "tiny.safetensors", metadata={"format": "pt"})
    pack = without_weights(folder.folder, tmp_path / "pack")
    return replace(folder, checkpoint=tmp_path / "tiny.safetensors", folder=pack, pack=pack)


def replaced(weights: Path, content: bytes) -> None:
    """Another file of the same name, as whoever fetches or trains anew leaves it; of the same time, too."""
    other, stamp = weights.with_name("other"), weights.stat()
    other.write_bytes(content)
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(weights)


def rewritten(weights: Path, content: bytes) -> None:
    """The same file with other bytes, as many."""
    with weights.open("r+b") as open_file:
        assert len(content) == os.fstat(open_file.fileno()).st_size
        open_file.write(content)


def load(library: Library, entry: Entry) -> LoadedModel:
    """The model, as the next job gets it."""
    return library.load(entry, lambda done: None, Event())


@pytest.mark.parametrize("write", [replaced, rewritten])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_mended_weights_are_read(
    request: pytest.FixtureRequest, kind: str, write: Callable[[Path, bytes], None]
) -> None:
    """A model that made no picture makes one in the next job, without a new worker; what is broken is gone."""
    entry: Entry = request.getfixturevalue(kind)
    weights = entry.checkpoint or entry.folder / UNET
    sound, expected = weights.read_bytes(), painted(opened(entry))
    tensors = load_file(weights)
    last = max(name for name in tensors if name.endswith(("conv_out.weight", "diffusion_model.out.2.weight")))
    save_file({**tensors, last: torch.full_like(tensors[last], torch.nan)}, weights, metadata={"format": "pt"})
    library = Library(open_device("cpu"))
    with pytest.raises(NotFinite):
        painted(load(library, entry))
    held = library.residency.bytes

    write(weights, sound)

    model = load(library, entry)
    np.testing.assert_array_equal(painted(model), expected)
    assert library.residency.bytes == held
    assert load(library, entry) is model


def test_a_changed_configuration_is_read(folder: Entry) -> None:
    """Weights stay in memory that are the same."""
    library = Library(open_device("cpu"))
    load(library, folder)
    config = folder.folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "v_prediction"}))

    model = load(library, folder)

    assert model.family.parts.config("scheduler")["prediction_type"] == "v_prediction"
    assert library.residency.reads == 3


def test_a_model_that_shares_what_changed_reads_it_too(folder: Entry, tmp_path: Path) -> None:
    """Two models whose UNet is one file: both paint with its new weights, which are in memory once."""
    other = replace(folder, folder=tmp_path / "other", model=replace(folder.model, id="other"))
    shutil.copytree(folder.folder, other.folder)
    (other.folder / UNET).unlink()
    (other.folder / UNET).symlink_to(folder.folder / UNET)
    library = Library(open_device("cpu"))
    before = [painted(load(library, entry)) for entry in (folder, other)]
    changed = {name: value * 0.5 for name, value in load_file(folder.folder / UNET).items()}
    save_file(changed, folder.folder / UNET, metadata={"format": "pt"})

    models = [load(library, entry) for entry in (folder, other)]

    assert models[0].family.parts["unet"] is models[1].family.parts["unet"]
    for model, picture in zip(models, before, strict=True):
        assert (painted(model) != picture).any()


def test_a_model_that_is_broken_while_it_is_loaded_says_so(folder: Entry) -> None:
    """And works again once it is mended."""
    library = Library(open_device("cpu"))
    load(library, folder)
    weights = folder.folder / UNET
    sound = weights.read_bytes()
    weights.unlink()
    for _ in range(2):
        with pytest.raises(ModelBroken, match="no safetensors"):
            load(library, folder)
        assert "tiny" not in library
    weights.write_bytes(sound)

    assert painted(load(library, folder)).shape == (1, 64, 64, 3)
    assert "tiny" in library


def test_a_file_that_is_taken_away_says_so(file: Entry) -> None:
    """Whether it was loaded before or not."""
    library = Library(open_device("cpu"))
    load(library, file)
    assert file.checkpoint is not None
    file.checkpoint.unlink()

    for each in (library, Library(open_device("cpu"))):
        with pytest.raises(ModelBroken, match=r"gone|cannot be read|no such"):
            load(each, file)
