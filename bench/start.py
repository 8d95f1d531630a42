"""From the start of the daemon's process to its `welcome`, and the memory of the process that answers."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from report import Figure, show
from underpaint_backend.client import connect
from underpaint_backend.launch import launched


def main() -> None:
    """Start the daemon several times and print the median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    runs = [measure() for _ in range(arguments.runs + 1)][1:]
    milliseconds = statistics.median(run[0] for run in runs)
    rows = [
        {"what": "start to listening, ms", "median": statistics.median(run[1] for run in runs)},
        {"what": "start to welcome, ms", "median": milliseconds},
        {"what": "server process resident, MiB (goal <= 60)", "median": statistics.median(run[2] for run in runs)},
    ]
    show(Figure("start", milliseconds, "ms", "<= 300", rows), arguments.json)


def measure() -> tuple[float, float, float]:
    """One start: milliseconds to `welcome` and to listening, and resident memory in MiB while the worker imports."""
    with tempfile.TemporaryDirectory() as home:
        began = time.perf_counter()
        with launched(Path(home)) as daemon:
            listening = time.perf_counter() - began
            welcome = asyncio.run(welcomed(daemon.url, daemon.token)) - began
            time.sleep(0.2)
            return 1000 * welcome, 1000 * listening, resident(daemon.process.pid)


async def welcomed(url: str, token: str) -> float:
    """The moment at which the daemon's `welcome` is here."""
    async with connect(url, token):
        return time.perf_counter()


def resident(pid: int) -> float:
    """Resident memory of a process in MiB, as Linux tells it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError("the process has no resident memory")


if __name__ == "__main__":
    main()
