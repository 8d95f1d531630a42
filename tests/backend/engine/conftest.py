"""Tiny models, written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Event

import pytest
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library, LoadedModel

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
