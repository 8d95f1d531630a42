"""One program at a time: a lock of the operating system, the same that other tools take on the hub's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from ..file_lock import try_lock
from .exceptions import DownloadCancelled

POLL = 0.05
"""Seconds between two tries."""


@contextmanager
def locked(path: Path, cancelled: Event) -> Iterator[None]:
    """Hold the lock on the file `path`; wait while another thread or program does.

    Raises `DownloadCancelled` if the event is set in the meantime.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not try_lock(descriptor):
            if cancelled.wait(POLL):
                raise DownloadCancelled
        yield
    finally:
        os.close(descriptor)
