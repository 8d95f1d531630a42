"""What Linux tells of a running process."""

from __future__ import annotations

import time
from pathlib import Path

from underpaint_backend.launch import Launched


def resident(pid: int) -> float:
    """Resident memory of a process in MiB. Raises `OSError` if there is no such process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError("the process has no resident memory")


def children(pid: int) -> list[int]:
    """Process ids of those that a process started and that still run."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_worker(daemon: Launched) -> None:
    """Until it says that it is ready: while it imports, it takes the time of whoever is measured."""
    deadline = time.monotonic() + 120
    while "ready on" not in daemon.said:
        if time.monotonic() > deadline:
            raise RuntimeError("the worker does not start")
        time.sleep(0.1)
