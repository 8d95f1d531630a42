"""Where the parts of a model come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import ModelBroken
from underpaint_backend.engine.library import Library
from underpaint_backend.engine.painting import Observer, Painting, paint
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.tiny import add_ip_adapter, build_tiny

PAINTING = Painting(
    (64, 64), "a dog", "a cat", 3.0, "ddim", 2, 1.0, [1], references=(np.full((32, 32, 3), 200, np.uint8),)
)


def painted(entry: Entry) -> np.ndarray:
    """What a library that is new paints with a model."""
    model = Library(open_device("cpu")).load(entry, lambda fraction: None, Event())
    return paint(model, PAINTING, Observer(lambda phase: None, lambda step: None), Event())


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


def test_a_damaged_part_elsewhere_says_so_without_its_path(tmp_path: Path) -> None:
    """The path of a folder is nobody's business."""
    entry = scattered(add_ip_adapter(build_tiny(tmp_path / "whole", 4)), tmp_path / "other")
    entry.elsewhere["ip_adapter"].write_bytes(b"rubbish")
    with pytest.raises(ModelBroken) as caught:
        painted(entry)
    assert str(tmp_path) not in caught.value.info.message
