"""Downloads of the brush, and what is on the disk after them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from underpaint_backend.models.catalog import locate
from underpaint_backend.models.download import Download
from underpaint_backend.models.exceptions import ModelError
from underpaint_backend.models.meter import Progress
from underpaint_backend.models.store import Store

from tests.backend.models.things import (
    REPOSITORY,
    offer,
)


def pull(given: Download, cancelled: threading.Event | None = None) -> list[Progress]:
    heard: list[Progress] = []
    given.run(heard.append, cancelled or threading.Event())
    return heard


def refused(given: Download) -> ModelError:
    with pytest.raises(ModelError) as refusal:
        pull(given)
    return refusal.value


def state(root: Path) -> str:
    return locate(offer(), Store(root)).model.state


def snapshot(root: Path) -> Path:
    return Store(root).snapshot(REPOSITORY, "c" * 40)
