"""A real daemon in a process of its own, for tests to talk to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class RunningDaemon:
    """A daemon process that answers at `url`, with a home folder of its own."""

    process: subprocess.Popen[str]
    url: str
    token: str
    home: Path

    def stop(self) -> int:
        """Ask it to end as a service manager would, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(20)


def start_daemon(home: Path, *words: str) -> RunningDaemon:
    """Start the real daemon on a free port and wait until it listens."""
    environment = {**os.environ, "UNDERPAINT_HOME": str(home), "OMP_NUM_THREADS": "1"}
    with (home / "stderr.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "underpaint_backend", "serve", "--port", "0", *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Underpaint listens on "), (home / "stderr.log").read_text()
    return RunningDaemon(process, line.split()[-1], (home / "token").read_text().strip(), home)
