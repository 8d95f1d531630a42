"""A lock of the operating system on a file that is open. It goes when the file is closed or its process ends."""

from __future__ import annotations

import errno
import sys

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def try_lock(descriptor: int) -> bool:
    """Lock the file, or say at once that another thread or program has it. Raises `OSError` where there are no locks.

    Whoever is done leaves the file where it is: to delete it would let two lock two files of one name.
    """
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise
    return True
