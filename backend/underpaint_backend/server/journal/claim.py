"""One daemon at a time: a lock of the operating system on a file beside the journal."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def claim(path: Path) -> int:
    """Lock the file `path`, which is made if need be, and return its descriptor; closing that lets it go.

    The system lets it go when the process ends, in whichever way. Raises `OSError`; its text is "another daemon uses
    it" if the lock is held. The file stays: to delete it would let two daemons lock two files of one name.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor)
    except OSError as error:
        os.close(descriptor)
        if error.errno in TAKEN:
            raise OSError(error.errno, "another daemon uses it") from error
        raise
    return descriptor
