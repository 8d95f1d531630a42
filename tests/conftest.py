"""What all tests share: how hypothesis runs, and a real daemon to talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.running import RunningDaemon, start_daemon

# These machines are shared: how long an example takes says nothing.
settings.register_profile("underpaint", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("underpaint")


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One daemon with the built-in model for all tests that do not harm it."""
    running = start_daemon(tmp_path_factory.mktemp("daemon"))
    yield running
    running.stop()


@pytest.fixture
def own_daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon for one test, which may kill it."""
    running = start_daemon(tmp_path)
    yield running
    running.stop()
