"""How far a download is, how fast, and how long it still takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 8.0
"""Seconds over which the speed is averaged."""
INTERVAL = 0.1
"""Seconds between two reports of progress."""


@dataclass(frozen=True)
class Progress:
    """How far a download is, in bytes. `seconds_left` is None as long as nobody can tell. `file` is on its way now."""

    done: int
    total: int
    bytes_per_second: float
    seconds_left: float | None
    file: str


class Meter:
    """Counts bytes and tells how far it is."""

    def __init__(self, total: int, on_progress: Callable[[Progress], None]) -> None:
        self.of_file = 0
        self._total = total
        self._done = 0
        self._file = ""
        self._on_progress = on_progress
        self._reported = 0.0
        self._window: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._arrived = 0

    def begin(self, file: str) -> None:
        """The next file."""
        self._file, self.of_file = file, 0
        self._now_and_then()

    def skip(self, count: int) -> None:
        """Bytes that were here already; fewer than none if they have to come again."""
        self._done += count
        self.of_file += count
        self._now_and_then()

    def arrive(self, count: int) -> None:
        """Bytes that came."""
        self._arrived += count
        self.skip(count)

    def report(self) -> None:
        """Say how far it is."""
        now = self._reported = time.monotonic()
        self._window.append((now, self._arrived))
        while now - self._window[0][0] > WINDOW and len(self._window) > 2:
            self._window.popleft()
        since, before = self._window[0]
        speed = (self._arrived - before) / max(now - since, 1e-6)
        left = (self._total - self._done) / speed if speed > 0 else None
        self._on_progress(Progress(self._done, self._total, speed, left, self._file))

    def _now_and_then(self) -> None:
        if time.monotonic() - self._reported >= INTERVAL:
            self.report()


def in_gb(size: float) -> str:
    """A number of bytes as disks and hubs count: 1 GB is 1000 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"
