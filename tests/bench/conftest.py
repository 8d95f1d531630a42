"""The measurements' own modules, and the tiny models that they run, written once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both tiny models."""
    from endurance.models import write

    folder = tmp_path_factory.mktemp("tiny")
    write(folder)
    return folder
