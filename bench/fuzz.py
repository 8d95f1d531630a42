"""Wrong bytes for a real daemon, before the websocket's handshake and after it, before `hello` and after it.

Meanwhile a client that behaves asks something every 100 ms. A crash is a daemon or worker that died, or an exception
that reached the log as a traceback; a hang is an answer that takes more than a second, or a connection that for so
long neither answers nor closes. What the n-th visit sends depends on `--seed` and n alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from fuzzing.tally import Tally
from fuzzing.visits import KINDS, Place
from fuzzing.watch import Watcher, deaths, tracebacks
from report import Figure, show
from underpaint_backend.launch import Launched, launched
from underpaint_backend.server.access.guests import Guest, changing
from underpaint_backend.server.access.tokens import digest_of, guests_beside, make_token
from wire.process import children, resident, wait_for_worker

DAEMON = ("--threads", "1", "--keep-gib", "0.1")
"""With so little room for tiles, their index is as large as it can become before the daemon counts as warm."""
VISITORS = 4
"""Connections at a time."""
WARM_UP = 0.5
"""Part of the frames after which the daemon's memory counts as warm. It grows for about 150,000 frames, until what it
remembers for a while, as sessions that somebody might resume, is as much as its bounds allow."""
HANG = 1.0
"""Seconds."""
READINGS = 40
"""Of the daemon's memory, four in a second: it tidies every five seconds, and one reading wavers by 9 % with that."""


def main() -> None:
    """Send at least `--frames` frames and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, launched(Path(folder), *DAEMON) as daemon:
        figure = measure(daemon, arguments.frames, arguments.seed)
    show(figure, arguments.json)


def settled(pid: int) -> float:
    """The median of the memory of a process, in MiB, over ten seconds without visits."""
    readings = []
    for _ in range(READINGS):
        time.sleep(0.25)
        readings.append(resident(pid))
    return statistics.median(readings)


def measure(daemon: Launched, frames: int, seed: int) -> Figure:
    """Visit a daemon until `frames` were sent."""
    place = Place(daemon.url, add_guest(daemon))
    wait_for_worker(daemon)
    worker, tally, began = children(daemon.process.pid), Tally(), time.monotonic()
    earlier = tracebacks(daemon)
    with Watcher(daemon) as watcher:
        visits = (f"{seed}/{number}" for number in itertools.count())
        asyncio.run(visit_until(place, visits, tally, int(frames * WARM_UP)))
        warm = settled(daemon.process.pid)
        asyncio.run(visit_until(place, visits, tally, frames))
        seconds = time.monotonic() - began
        grown = 100 * (settled(daemon.process.pid) / warm - 1)
    slow = sum(answer > HANG for answer in watcher.seconds)
    raised = tracebacks(daemon) - earlier
    faults = {**deaths(daemon, worker), f"tracebacks in the log: {_names(raised)}": raised.total()}
    rows = tally.rows()
    rows += [
        row("all", f"in {seconds:.0f} s", tally.frames),
        row("the other client", "questions", len(watcher.seconds)),
        row("the other client", "longest answer, ms", round(1000 * max(watcher.seconds, default=0.0))),
        row("the other client", "answers over 1 s", slow),
        row("the other client", "connections lost", watcher.lost),
        row("memory", f"resident after the warm-up, {warm:.1f} MiB; grown by % (goal < 5)", round(grown, 2)),
        *(row("crashes", name, count) for name, count in faults.items()),
        row("hangs", f"connections left waiting: {_names(tally.hung)}", tally.hangs),
    ]
    return Figure("fuzz", sum(faults.values()) + slow + watcher.lost + tally.hangs, "crashes and hangs", "0", rows)


async def visit_until(place: Place, visits: Iterator[str], tally: Tally, frames: int) -> None:
    """Make visits, some at a time, until `frames` were sent. Each name is the seed of one."""

    async def visitor() -> None:
        while tally.frames < frames:
            name = next(visits)
            random = Random(name)
            phase, kind, _, visit = random.choices(KINDS, [share for _, _, share, _ in KINDS])[0]
            await visit(place, random, tally.line(phase, kind), name)

    async with asyncio.TaskGroup() as visitors:
        for _ in range(VISITORS):
            visitors.create_task(visitor())


def add_guest(daemon: Launched) -> str:
    """A token of its own for the visits, so that all else belongs to somebody else."""
    token = make_token()
    with changing(guests_beside(daemon.home / "token")) as guests:
        guests["visitor"] = Guest(digest_of(token))
    return token


def _names(many: Iterable[str]) -> str:
    """Some of them."""
    return ", ".join(itertools.islice(many, 6)) or "none"


def row(phase: str, kind: str, value: object) -> dict[str, object]:
    """A row with one value, in the first column of numbers."""
    return {"phase": phase, "kind": kind, "frames": value}


if __name__ == "__main__":
    main()
