"""The daemon's journal from outside: a second connection that fills it, and one that watches which jobs end in it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from pathlib import Path

PAGE = 4096

WATCH = (
    "CREATE TABLE IF NOT EXISTS watched_ends (session TEXT, job TEXT)",
    """CREATE TRIGGER IF NOT EXISTS watch_ends AFTER UPDATE OF ended ON jobs WHEN new.ended IS NOT NULL
    BEGIN INSERT INTO watched_ends VALUES (new.session, new.job); END""",
    "CREATE TABLE IF NOT EXISTS ballast (data BLOB)",
)
"""Tables and a trigger of ours beside the daemon's own tables."""


class Journal:
    """A journal that a daemon uses at the same time. Everything blocks, at most for a few seconds."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_pages = max_bytes // PAGE

    def watch(self) -> None:
        """From now on each end of a job that is written down is kept, also when the job is forgotten."""
        with self._open() as connection:
            for statement in WATCH:
                connection.execute(statement)

    def fill(self, wholly: bool) -> None:
        """Add ballast until no job is accepted any more, or, `wholly`, until nothing at all can be added."""
        with self._open() as connection:
            connection.execute(f"PRAGMA max_page_count = {self._max_pages}")
            size = 16 * PAGE
            while size > PAGE // 16 and (wholly or self._used(connection) < 0.92):
                try:
                    connection.execute("INSERT INTO ballast VALUES (zeroblob(?))", (size,))
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                        raise
                    size //= 2

    def empty(self) -> None:
        """Take the ballast out."""
        with self._open() as connection:
            connection.execute("DELETE FROM ballast")

    def ended_twice(self) -> list[str]:
        """Jobs whose end was written down more than once, as `session job`."""
        with self._open() as connection:
            ends = Counter(connection.execute("SELECT session, job FROM watched_ends").fetchall())
        return [f"{session[:6]} {job}" for (session, job), count in ends.items() if count > 1]

    def left(self) -> tuple[int, int]:
        """How many jobs it holds that have not ended, and how many that were not acknowledged."""
        with self._open() as connection:
            (running,) = connection.execute("SELECT count(*) FROM jobs WHERE ended IS NULL").fetchone()
            (ended,) = connection.execute("SELECT count(*) FROM jobs WHERE ended IS NOT NULL").fetchone()
        return running, ended

    def _used(self, connection: sqlite3.Connection) -> float:
        pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return float(pages - free) / self._max_pages

    def _open(self) -> contextlib.closing[sqlite3.Connection]:
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        return contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None))
