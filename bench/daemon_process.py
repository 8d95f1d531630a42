"""A daemon for a measurement: a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def running_daemon(home: Path, *words: str) -> Iterator[tuple[str, str]]:
    """Start a daemon that keeps its files in `home`; gives its address and token, and ends it afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "underpaint_backend", "serve", "--port", "0", *words],
        env={**os.environ, "UNDERPAINT_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split()[-1]
        yield url, (home / "token").read_text(encoding="ascii").strip()
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
