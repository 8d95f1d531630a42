"""A file of which at most one process, and one place in it, may believe that it is its own, until it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO, Optional


def claim(path: Path) -> Optional[IO[bytes]]:
    """Lock the file at `path`, which is made if need be; None if somebody has it.

    It stays locked until what is returned is closed, or the process ends, in whatever way.
    Raises `OSError` if the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        _lock(file.fileno())
    except OSError:
        file.close()
        return None
    return file


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
