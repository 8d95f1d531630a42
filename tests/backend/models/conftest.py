"""The hub that downloads are tried with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backend.models.hub import StandIn, stand_in
from tests.backend.models.things import (
    brush,
)


@pytest.fixture
def hub() -> Iterator[StandIn]:
    """A hub with one repository, the brush."""
    with stand_in(artist__brush=brush()) as running:
        yield running
