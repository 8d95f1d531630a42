"""Tiny models and a worker that offers them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.backend.engine.tiny import build_tiny
from tests.backend.worker.driving import WorkerProcess


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that fills masks, one that knows no masks, and a broken one."""
    folder = tmp_path_factory.mktemp("models")
    build_tiny(folder / "fills", 9)
    build_tiny(folder / "plain", 4)
    build_tiny(folder / "broken", 9)
    weights = folder / "broken" / "unet" / "diffusion_pytorch_model.safetensors"
    some = dict(list(load_file(weights).items())[::2])  # which only who loads them can see
    save_file(some, weights)
    return folder


@pytest.fixture(scope="session")
def shared_worker(models_folder: Path) -> Iterator[WorkerProcess]:
    """One worker for all tests that leave it as it was."""
    worker = WorkerProcess([models_folder])
    worker.wait_ready()
    yield worker
    assert worker.close() == 0
