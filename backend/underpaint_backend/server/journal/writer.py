"""What the journal's thread does: it keeps the file open, writes groups of operations, and opens the file again."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .claim import claim
from .file import open_file, shrink, transaction
from .rows import Contents, Contradiction, JournalError, NotInJournal

log = logging.getLogger(__name__)

Operation = Callable[[sqlite3.Connection], None]

CALLERS_FAULT = (sqlite3.DataError, sqlite3.ProgrammingError)
"""Errors of SQLite that blame the values of an operation and not the file; `sqlite3.InterfaceError` is one as well."""


class Writer:
    """A journal's file, used by one thread. Times are in seconds."""

    def __init__(self, path: Path, max_bytes: int | None, reopen_after: float, busy_timeout: float) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._reopen_after = reopen_after
        self._busy_timeout = busy_timeout
        self._claim: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._trouble = JournalError("journal_unavailable", "it is not open")
        self._logged: str | None = None
        self._next_try = 0.0

    def open(self) -> Contents:
        """Open the file and return what it holds: nothing if it cannot be opened, which the log tells."""
        try:
            return self._open()
        except Exception as error:
            self._verdict(error)
            return Contents()

    def write(self, operations: Sequence[Operation]) -> list[Exception | None]:
        """Apply operations in one transaction, and return for each of them why it failed.

        If one fails they are done again one by one, so that only the bad ones fail.
        """
        try:
            connection = self._connected()
            with transaction(connection):
                for operation in operations:
                    operation(connection)
        except Exception as error:
            if len(operations) > 1:
                return [outcome for operation in operations for outcome in self.write([operation])]
            return [self._verdict(error)]
        self._works_again()
        shrink(connection)
        return [None] * len(operations)

    def close(self) -> None:
        """Close the file and let another daemon have it."""
        self._disconnect()
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def _open(self) -> Contents:
        """Raises `OSError` or `sqlite3.Error`. What was claimed stays claimed: this daemon knows the journal's jobs."""
        if self._claim is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._claim = claim(self._path.with_name(f"{self._path.name}.lock"))
        self._connection, contents = open_file(self._path, self._max_bytes, self._busy_timeout)
        return contents

    def _connected(self) -> sqlite3.Connection:
        """The connection, which is made again if the last try was long enough ago."""
        if self._connection is None:
            if time.monotonic() < self._next_try:
                raise JournalError(self._trouble.code, self._trouble.detail)
            self._open()
        assert self._connection is not None
        return self._connection

    def _verdict(self, error: Exception) -> Exception:
        """What to tell the one whose operation failed; the file is closed if it is to blame."""
        if isinstance(error, (JournalError, Contradiction)):
            return error
        if self._connection is None:
            return self._give_up(_trouble(error))
        if isinstance(error, sqlite3.IntegrityError):
            missing = error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
            return NotInJournal() if missing else Contradiction(str(error))
        if isinstance(error, CALLERS_FAULT) or not isinstance(error, sqlite3.DatabaseError):
            return error
        trouble = _trouble(error)
        return trouble if trouble.code == "journal_full" else self._give_up(trouble)

    def _give_up(self, trouble: JournalError) -> JournalError:
        """Do without the file for a while."""
        self._disconnect()
        self._trouble = trouble
        self._next_try = time.monotonic() + self._reopen_after
        if trouble.detail != self._logged:
            self._logged = trouble.detail
            log.error("the journal %s cannot be used, and no job is accepted: %s", self._path, trouble.detail)
        return trouble

    def _works_again(self) -> None:
        if self._logged is not None:
            self._logged = None
            log.warning("the journal %s can be used again", self._path)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _trouble(error: Exception) -> JournalError:
    full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    full = full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))
    # The text of an OSError names the path, its strerror does not.
    detail = getattr(error, "strerror", None) or str(error)
    return JournalError("journal_full" if full else "journal_unavailable", detail)
