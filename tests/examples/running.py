"""Runs an example in a process of its own, for the user whose daemon it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from underpaint_backend.launch import Launched

EXAMPLES = Path(__file__).parents[2] / "examples"


def command(name: str, *words: str) -> list[str]:
    """How to run an example."""
    return [sys.executable, str(EXAMPLES / name), *words]


def environment(daemon: Launched) -> dict[str, str]:
    """Where the example finds the daemon's token."""
    return {**os.environ, "UNDERPAINT_HOME": str(daemon.home), "PYTHONUNBUFFERED": "1"}


def example(name: str, *words: str, daemon: Launched) -> subprocess.CompletedProcess[str]:
    """Run an example that takes `--url` to its end."""
    words = (*words, "--url", daemon.url)
    return subprocess.run(command(name, *words), env=environment(daemon), capture_output=True, text=True, timeout=180)
