"""What stays behind in a daemon that runs for long: memory, files and threads over thousands of jobs.

Clients come and go, lose connections, change their canvas, cancel and supersede, and acknowledge everything. The store
of tiles is small, so that it is full after the warm-up, as that of a daemon is which has run for weeks.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from endurance.models import build
from endurance.painter import Painter
from endurance.plan import endless_plan
from report import Figure, show
from underpaint_backend.launch import Launched, launched

KEEP_GIB = 1 / 4
"""What the daemon may keep of pixels: more than the jobs hold that are open at once, less than the warm-up sends."""
JOURNAL_MIB = 16
LOOKS = 5
"""How often open files are counted for a sample; the least counts, as a tile that is read is open for a moment."""
READINGS = 0.25
"""Seconds between two readings of memory. A sample has the median of those since the last one, as what is just on its
way through the daemon makes single ones waver by 2 MiB."""


@dataclass(frozen=True)
class Sample:
    """How things stand after `jobs`, and memory since the last sample.

    Sizes are in MiB; `files` are open ones without connections to clients.
    """

    jobs: int
    seconds: float
    daemon: float
    worker: float
    files: int
    threads: int
    journal: float
    tiles: float


def main() -> None:
    """Run jobs, print how everything grew, and last how the daemon's memory did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--warm-up", type=int, default=600, help="jobs before the first sample")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--painters", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, help="a folder that holds the tiny models already")
    parser.add_argument("--keep-gib", type=float, default=KEEP_GIB, help="for the daemon's tiles")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = options.models or Path(folder) / "models"
        if options.models is None:
            build(models)
        words = ("--threads", "1", "--models", str(models), "--keep-gib", str(options.keep_gib))
        with launched(Path(folder) / "home", *words, "--journal-mib", str(JOURNAL_MIB)) as daemon:
            samples, ends = asyncio.run(soak(daemon, options))
    show(figure_of(samples, ends), options.json)


async def soak(daemon: Launched, options: argparse.Namespace) -> tuple[list[Sample], Counter[str]]:
    """All samples, and how jobs ended. Raises what breaks a painter."""
    ends: Counter[str] = Counter()
    jobs = islice(endless_plan(options.seed, 0), options.warm_up + options.jobs)  # one canvas, which all work on
    painters = [Painter(number, daemon.url, daemon.token, jobs, ends) for number in range(options.painters)]
    async with asyncio.TaskGroup() as tasks:
        sampling = tasks.create_task(_sample(daemon, ends, options))
        for painter in painters:
            tasks.create_task(painter.paint())
    return sampling.result(), ends


async def _sample(daemon: Launched, ends: Counter[str], options: argparse.Namespace) -> list[Sample]:
    """Look at regular distances in jobs, from the warm-up on."""
    began, samples = time.monotonic(), list[Sample]()
    process = psutil.Process(daemon.process.pid)
    await _read(process, ends, options.warm_up)
    for number in range(1, options.samples + 1):
        memory = await _read(process, ends, options.warm_up + number * options.jobs // options.samples)
        seconds = time.monotonic() - began
        samples.append(await asyncio.to_thread(look, process, daemon.home, ended(ends), seconds, memory))
    return samples


async def _read(process: psutil.Process, ends: Counter[str], until: int) -> list[tuple[float, float]]:
    """Read the memory of daemon and worker, in MiB, again and again until that many jobs have ended; at least once."""
    readings = []
    while True:
        for worker in process.children():  # at first there is none yet
            readings.append((process.memory_info().rss / 2**20, worker.memory_info().rss / 2**20))
        if readings and ended(ends) >= until:
            return readings
        await asyncio.sleep(READINGS)


def ended(ends: Counter[str]) -> int:
    """How many jobs have ended."""
    return ends["done"] + ends["failed"] + ends["cancelled"]


def look(process: psutil.Process, home: Path, jobs: int, seconds: float, memory: list[tuple[float, float]]) -> Sample:
    """One sample of a daemon; `memory` is what was read of it and its worker since the last one."""
    daemon, worker = zip(*memory, strict=True)
    return Sample(
        jobs,
        seconds,
        statistics.median(daemon),
        statistics.median(worker),
        min(_files(process) for _ in range(LOOKS)),
        process.num_threads(),
        _bytes(home.glob("journal.sqlite*")) / 2**20,
        _bytes((home / "tiles").rglob("*")) / 2**20,
    )


def _files(process: psutil.Process) -> int:
    time.sleep(0.01)
    return int(process.num_fds()) - len(process.net_connections("tcp"))


def _bytes(paths: Iterator[Path]) -> int:
    total = 0
    for path in paths:
        try:
            status = path.lstat()
        except FileNotFoundError:  # it was evicted meanwhile
            continue
        total += status.st_size if path.is_file() else 0
    return total


def figure_of(samples: Sequence[Sample], ends: Counter[str]) -> Figure:
    """The table and the growth of the daemon's memory."""
    names = list(Sample.__annotations__)
    rows: list[dict[str, object]] = [{"what": "", **vars(sample)} for sample in samples]
    growth = {name: _growth([float(getattr(sample, name)) for sample in samples]) for name in names[2:]}
    rows.append({"what": "growth, %", **growth})
    rows += [{"what": name, "jobs": count} for name, count in sorted(ends.items())]
    return Figure("soak", growth["daemon"], "%", "< 5", rows)


def _growth(values: Sequence[float]) -> float:
    """By how many percent the median of the last quarter of the values is above that of the first."""
    quarter = max(1, len(values) // 4)
    first, last = (statistics.median(part) for part in (values[:quarter], values[-quarter:]))
    return 100 * (last - first) / first if first else 0.0


if __name__ == "__main__":
    main()
