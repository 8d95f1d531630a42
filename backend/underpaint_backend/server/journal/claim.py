"""One daemon at a time: a lock of the operating system on a file beside the journal."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ...file_lock import try_lock


def claim(path: Path) -> int:
    """Lock the file `path`, which is made if need be, and return its descriptor; closing that lets it go.

    The system lets it go when the process ends, in whichever way. Raises `OSError`; its text is "another daemon uses
    it" if the lock is held.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not try_lock(descriptor):
            raise OSError(errno.EAGAIN, "another daemon uses it")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
