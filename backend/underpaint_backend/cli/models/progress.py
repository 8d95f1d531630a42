"""What someone sees of a download while it comes."""

from __future__ import annotations

import shutil
import sys
import time

from ...models.meter import Progress, in_gb

QUIET_INTERVAL = 10.0
"""Seconds between two lines of progress where there is no terminal."""


class Screen:
    """One line that changes, or a line now and then where there is no terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said = -QUIET_INTERVAL

    def show(self, progress: Progress) -> None:
        """Say how far it is."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{in_words(progress)[:width]:{width}}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._said >= QUIET_INTERVAL:
            self._said = time.monotonic()
            print(in_words(progress), file=sys.stderr, flush=True)

    def ask(self, endpoint: str) -> None:
        """Say who is asked, before anything is known: that may take a while where there is no network."""
        if self._terminal:
            print(f"Asking {endpoint}…", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line that changes."""
        if self._terminal:
            print(file=sys.stderr)


def in_words(progress: Progress) -> str:
    """As "4.2 GB of 15.9 GB, 26 %, 11.2 MB/s, 17 min left: transformer/...safetensors"."""
    share = 100 * progress.done // max(progress.total, 1)
    words = [f"{in_gb(progress.done)} of {in_gb(progress.total)}", f"{share} %"]
    if progress.bytes_per_second > 0:
        words.append(f"{in_gb(progress.bytes_per_second)}/s")
    if progress.seconds_left is not None:
        words.append(f"{_time(progress.seconds_left)} left")
    return f"{', '.join(words)}: {progress.file}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
