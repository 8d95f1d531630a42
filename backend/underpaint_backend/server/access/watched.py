"""A file that may change while the daemon runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Watched(Generic[T]):
    """What a file says, read again when the file changed."""

    def __init__(self, path: Path, read: Callable[[Path], T], nothing: T) -> None:
        """`read` raises `OSError` or `ValueError` if the file says nothing that can be understood; then `nothing` is
        what it says, and the log has the reason, once for each version of the file."""
        self._path = path
        self._read = read
        self._nothing = self._value = nothing
        self._version: object = None

    def value(self) -> T:
        """What the file says now."""
        version = self._look()
        if version != self._version:
            self._version, self._value = version, self._attempt()
        return self._value

    def _look(self) -> object:
        """Something that is another whenever the file is another."""
        try:
            state = self._path.stat()
        except OSError as error:
            return error.errno
        # the mode, too: a file is mended with chmod when others could read it
        return state.st_mtime_ns, state.st_size, state.st_ino, state.st_mode

    def _attempt(self) -> T:
        try:
            return self._read(self._path)
        except (OSError, ValueError) as error:
            log.error("what is in %s does not count: %s", self._path.name, error)
            return self._nothing
