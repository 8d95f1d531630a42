"""One program at a time: a lock of the operating system, the same that other tools take on the hub's cache."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from .exceptions import DownloadCancelled

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
POLL = 0.05
"""Seconds between two tries."""


@contextmanager
def locked(path: Path, cancelled: Event) -> Iterator[None]:
    """Hold the lock on the file `path`; wait while another thread or program does.

    The file stays: to delete it would let two lock two files of one name. Raises `DownloadCancelled` if the event is
    set in the meantime.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not _taken(descriptor):
            if cancelled.wait(POLL):
                raise DownloadCancelled
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise
    return True
