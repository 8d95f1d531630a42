"""A journal that a test opens, fills, and gets at from beside."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from underpaint_backend.server.journal import Contents, EventRow, JobRow, Journal, SessionRow

SESSION = SessionRow("s", "ada", "krita", 0)
OWNER, DAY = "ada", "2026-11-23"

VERSION_1 = """
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    CREATE TABLE sessions (
        place INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        client TEXT NOT NULL,
        reserved INTEGER NOT NULL CHECK (typeof(reserved) = 'integer'),
        touched REAL NOT NULL CHECK (typeof(touched) = 'real'));
    CREATE TABLE jobs (
        place INTEGER PRIMARY KEY,
        session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        job TEXT NOT NULL,
        submit BLOB NOT NULL CHECK (typeof(submit) = 'blob'),
        attempts INTEGER NOT NULL CHECK (typeof(attempts) = 'integer'),
        submitted REAL NOT NULL CHECK (typeof(submitted) = 'real'),
        ended REAL CHECK (typeof(ended) IN ('real', 'null')),
        UNIQUE (session, job));
    CREATE TABLE events (
        session TEXT NOT NULL,
        seq INTEGER NOT NULL CHECK (typeof(seq) = 'integer'),
        job TEXT NOT NULL,
        message BLOB NOT NULL CHECK (typeof(message) = 'blob'),
        UNIQUE (session, seq),
        FOREIGN KEY (session, job) REFERENCES jobs (session, job) ON DELETE CASCADE);
    CREATE INDEX events_of_job ON events (session, job);
    CREATE TABLE usage (
        owner TEXT NOT NULL,
        day TEXT NOT NULL,
        work INTEGER NOT NULL CHECK (typeof(work) = 'integer'),
        PRIMARY KEY (owner, day)) WITHOUT ROWID;
    PRAGMA user_version = 1;
    """
"""The journal as its first version made it."""


def job(number: int, size: int = 10) -> JobRow:
    """A job of the session, whose submit has `size` bytes."""
    return JobRow("s", f"job-{number}", bytes(size), 0, 5, DAY, None)


def event(seq: int, number: int) -> EventRow:
    """The first event of that job."""
    return EventRow("s", seq, f"job-{number}", b"accepted")


@contextlib.asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[tuple[Journal, Contents]]:
    """An open journal and what it held."""
    journal = Journal(path, **options)
    contents = await journal.open()
    try:
        yield journal, contents
    finally:
        await journal.close()


def bytes_on_disk(path: Path) -> int:
    """Of the file and its WAL together."""
    return sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}-wal")) if file.exists())


def jobs_in(home: Path) -> dict[str, tuple[int, bool]]:
    """The jobs that a daemon has written down: how often each was begun, and whether it has ended."""
    with beside(home / "journal.sqlite") as journal:
        rows = journal.execute("SELECT job, attempts, ended IS NOT NULL FROM jobs")
        return {job: (attempts, bool(ended)) for job, attempts, ended in rows}


def work_in(home: Path) -> int:
    """All work that a daemon has accepted, in its own unit; what is begun again does not count again."""
    with beside(home / "journal.sqlite") as journal:
        ((work,),) = journal.execute("SELECT SUM(work) FROM usage")
        return int(work)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[sqlite3.Connection]:
    """Another connection to the file, which commits by itself."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def made_by_version_1(path: Path) -> None:
    """Make an empty journal as version 1 of its tables had it."""
    with beside(path) as journal:
        journal.executescript(VERSION_1)


def downgraded(path: Path) -> None:
    """Make a journal of this version one of version 1, with all that was in it."""
    with beside(path) as journal:
        journal.executescript("""
            ALTER TABLE jobs DROP COLUMN work;
            ALTER TABLE jobs DROP COLUMN day;
            ALTER TABLE jobs ADD COLUMN submitted REAL NOT NULL DEFAULT 0.0;
            ALTER TABLE sessions ADD COLUMN touched REAL NOT NULL DEFAULT 0.0;
            PRAGMA user_version = 1;
            """)


async def filled(path: Path, jobs: int = 200) -> bytes:
    """A whole journal with some jobs; returns the file."""
    async with opened(path) as (journal, _):
        journal.open_session(SESSION)
        await asyncio.gather(*(journal.accept(job(n, 1000), event(n, n), OWNER) for n in range(jobs)))
    return path.read_bytes()
