"""How `underpaint models` is typed, and what is on the disk before and after."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from underpaint_backend.models.catalog import default_roots, find_models
from underpaint_backend.models.store import Store

from tests.backend.models.weight_files import write

Say = Callable[..., tuple[int, str, str]]


def store() -> Store:
    """The cache of the hub."""
    return Store(Path(os.environ["HF_HOME"]) / "hub")


def state_of(name: str) -> str:
    """Of the model of this name, as it is listed."""
    return find_models(default_roots())[name].model.state


def part(folder: Path) -> Path:
    """The weights of a part in its folder, with what goes with them."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return write(folder / "diffusion_pytorch_model.safetensors", {"x": (1,)})
