"""What all tests share: how hypothesis runs, a home that is nobody's, and a real daemon to talk to."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from underpaint_backend.launch import Launched, launched

BENCH = Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))  # The benches run at a small scale as tests, and share their tiny models with them.

# These machines are shared: how long an example takes says nothing.
settings.register_profile("underpaint", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("underpaint")


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where a test names no home, nothing is read from that of whoever runs it, and nothing is written there."""
    home = tmp_path_factory.mktemp("nobody")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_", "UNDERPAINT_"))]:
            patch.delenv(name)
        patch.setenv("UNDERPAINT_HOME", str(home / "underpaint"))
        patch.setenv("HF_HOME", str(home / "huggingface"))
        yield


@contextlib.contextmanager
def hurried(home: Path) -> Iterator[Launched]:
    """A daemon that does not wait for jobs that tests left behind: the second of two signals says so."""
    with launched(home, "--threads", "1") as running:
        yield running
        running.process.send_signal(signal.SIGINT)


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """One daemon with the built-in model for all tests that do not harm it."""
    with hurried(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def own_daemon(tmp_path: Path) -> Iterator[Launched]:
    """A daemon for one test, which may kill it."""
    with hurried(tmp_path / "home") as running:
        yield running
