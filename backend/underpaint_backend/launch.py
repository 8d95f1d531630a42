"""Start a daemon in a process of its own: for the demonstration, measurements and tests, and to open Krita with."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 20.0
"""Seconds that a daemon gets to stop."""


@dataclass(frozen=True)
class Launched:
    """A daemon that answers at `url` to whoever has `token`, and keeps its files in `home`."""

    process: subprocess.Popen[str]
    url: str
    token: str
    home: Path
    log_began: int = 0
    """Bytes of the log that earlier daemons left."""

    @property
    def log(self) -> Path:
        """What the daemon and its worker print, after what earlier ones did."""
        return self.home / "daemon.log"

    @property
    def said(self) -> str:
        """What this daemon and its worker have printed."""
        return self.log.read_bytes()[self.log_began :].decode("utf-8", "replace")

    def stop(self) -> int:
        """Ask the daemon to end, as a service manager would, and return its exit code; twice does no harm.

        Raises `subprocess.TimeoutExpired` if it does not end.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def launch(home: Path, *words: str, port: int = 0) -> Launched:
    """Start `underpaint serve` with more `words` and wait until it listens; port 0 takes a free one.

    Raises `RuntimeError` with the daemon's last words if it does not come up.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "daemon.log").open("ab") as log:
        earlier = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "underpaint_backend", "serve", "--port", str(port), *words],
            env={**os.environ, "UNDERPAINT_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    if not line:
        process.wait(PATIENCE)
        raise RuntimeError(Launched(process, "", "", home, earlier).said.strip()[-2000:])
    return Launched(process, line.split()[-1], (home / "token").read_text(encoding="ascii").strip(), home, earlier)


@contextlib.contextmanager
def launched(home: Path, *words: str) -> Iterator[Launched]:
    """A daemon for the length of a `with` block."""
    daemon = launch(home, *words)
    try:
        yield daemon
    finally:
        daemon.stop()
