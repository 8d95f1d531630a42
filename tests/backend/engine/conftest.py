"""Tiny models, written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Event

import pytest
import torch
from parities.tiny_flux1 import build_tiny_flux1
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.families import Family, family_class
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.sources import FolderSource
from underpaint_backend.models.catalog import Entry

from tests.backend.engine import classic_pipelines
from tests.backend.engine.lora_files import BUILDERS
from tests.backend.engine.tiny import build_tiny


@pytest.fixture(scope="session")
def load_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], LoadedModel]:
    """Load the tiny model whose UNet has 4 or 9 input channels."""
    root = tmp_path_factory.mktemp("models")
    library = Library(open_device("cpu"))

    @cache
    def load(channels: int) -> LoadedModel:
        return library.load(build_tiny(root / f"tiny-{channels}", channels), lambda fraction: None, Event())

    return load


@pytest.fixture
def tiny_inpaint(load_tiny: Callable[[int], LoadedModel]) -> LoadedModel:
    """A tiny model that was made for masks."""
    return load_tiny(9)


@pytest.fixture
def tiny_plain(load_tiny: Callable[[int], LoadedModel]) -> LoadedModel:
    """A tiny model that knows no masks."""
    return load_tiny(4)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the tiny model of a family, written once."""
    root = tmp_path_factory.mktemp("lora")

    def folder_of(name: str) -> Path:
        folder = root / name
        return folder if folder.is_dir() else BUILDERS[name](folder)

    return folder_of


@pytest.fixture
def load(folders: Callable[[str], Path]) -> Callable[[str], Family]:
    """Load the tiny model of a family."""
    return lambda name: family_class(name).load(FolderSource(folders(name)), open_device("cpu"), lambda done: None)


@pytest.fixture(scope="module")
def flux1(tmp_path_factory: pytest.TempPathFactory, extras: None) -> Entry:
    """A tiny FLUX.1 [schnell] for tests of quantised weights."""
    return build_tiny_flux1(tmp_path_factory.mktemp("flux1") / "model", "schnell")


@pytest.fixture(scope="session")
def load_classic(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    """Load one of the pipelines that run as a whole, by its name in `classic_pipelines.KINDS`."""
    root = tmp_path_factory.mktemp("classic")

    @cache
    def load(kind: str) -> LoadedModel:
        torch.manual_seed(3)
        return classic_pipelines.opened(classic_pipelines.write(root / kind, classic_pipelines.KINDS[kind]()))

    return load
