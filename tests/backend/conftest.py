"""The extras for quantised weights, for the tests that are of them, and a hub to fetch models from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

import run
from tests.backend.models.hub import StandIn, stand_in
from tests.backend.models.things import brush


@pytest.fixture(scope="module")
def extras() -> Iterator[None]:
    """bitsandbytes, gguf and torchao can be imported. All other tests go without, as most people do."""
    if not (run.EXTRAS / "installed").is_file():
        words = "“python3 run.py test” installs the extras"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    sys.path.append(str(run.EXTRAS))
    yield
    sys.path.remove(str(run.EXTRAS))


@pytest.fixture
def hub() -> Iterator[StandIn]:
    """A hub with one repository, the brush."""
    with stand_in(artist__brush=brush()) as running:
        yield running
