"""Starts what an end-to-end test needs: a display of its own, and Krita in a home folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build"
COMMAND = ("krita", "--nosplash")
NO_DISPLAY = "could not connect to display"


@dataclass(frozen=True)
class Performance:
    """What a scenario saw. `status` is Krita's exit status; `errors` are uncaught exceptions of any plugin."""

    facts: dict[str, Any]
    errors: list[str]
    boxes: list[str]
    status: int
    output: str
    facts_file: Path

    def saved(self, name: str) -> bytes:
        """Bytes that the scenario kept under `name`."""
        return Path(f"{self.facts_file}.{name}").read_bytes()

    def picture(self, name: str) -> np.ndarray:
        """Pixels that the scenario kept under `name`, as [height, width, channels]."""
        width, height = self.facts["size"]
        return np.frombuffer(self.saved(name), np.uint8).reshape(height, width, -1)


@contextlib.contextmanager
def display() -> Iterator[str]:
    """A virtual display of 1600 x 1000 pixels; its name, such as ":7"."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1000x24", "-noreset", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            number = pipe.readline().strip()
        if not number:
            raise RuntimeError("Xvfb did not start")
        yield f":{number}"
    finally:
        end(server)


def end(process: subprocess.Popen[Any]) -> None:
    """Stop a child, kindly at first."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    if process.poll() is None:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Krita:
    """An installed Krita; each start gets a copy of the home `template`, which has the plugin and the driver."""

    template: Path
    display: str

    def play(
        self, scenario: str, folder: Path, environment: Mapping[str, str] | None = None, timeout: float = 150
    ) -> Performance:
        """Play `scenarios/NAME.py` in a fresh Krita; `folder` takes its home and what it writes."""
        for _ in range(3):
            performance = self._play(scenario, folder, environment or {}, timeout)
            if NO_DISPLAY not in performance.output:
                break
        return performance

    def _play(self, scenario: str, folder: Path, environment: Mapping[str, str], timeout: float) -> Performance:
        home = Path(tempfile.mkdtemp(prefix="home-", dir=folder))
        shutil.copytree(self.template, home, dirs_exist_ok=True, symlinks=True)
        facts = home / "facts.json"
        script = HERE / "scenarios" / f"{scenario}.py"
        inside = {
            "UNDERPAINT_SCENARIO": str(script),
            "UNDERPAINT_FACTS": str(facts),
            "UNDERPAINT_PATIENCE": str(timeout - 10),
            **environment,
        }
        status, output = run_krita(home, self.display, inside, timeout)
        seen = json.loads(facts.read_text()) if facts.exists() else {"facts": {}, "errors": ["no facts"], "boxes": []}
        return Performance(seen["facts"], seen["errors"], seen["boxes"], status, output, facts)


def run_krita(home: Path, display: str, environment: Mapping[str, str], timeout: float) -> tuple[int, str]:
    """Start Krita and wait for its end: its exit status and what it printed. It is killed after `timeout` seconds."""
    runtime = home / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    basics = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "LANG": "C.UTF-8",
        "DISPLAY": display,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with (home / "krita.log").open("w+b") as log:
        process = subprocess.Popen(
            COMMAND, env={**basics, **environment}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        end_at = time.monotonic() + timeout
        while process.poll() is None and time.monotonic() < end_at:
            time.sleep(0.1)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        log.seek(0)
        return status, log.read().decode("utf-8", "replace")
