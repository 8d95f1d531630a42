"""A journal that a test opens, fills, and gets at from beside."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from underpaint_backend.server.journal import Contents, EventRow, JobRow, Journal, SessionRow

SESSION = SessionRow("s", "ada", "krita", 0, 100.0)
CHARGE = ("ada", "2026-11-23", 5)


def job(number: int, size: int = 10) -> JobRow:
    """A job of the session, whose submit has `size` bytes."""
    return JobRow("s", f"job-{number}", bytes(size), 0, 101.5, None)


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


async def filled(path: Path, jobs: int = 200) -> bytes:
    """A whole journal with some jobs; returns the file."""
    async with opened(path) as (journal, _):
        journal.open_session(SESSION)
        await asyncio.gather(*(journal.accept(job(n, 1000), event(n, n), CHARGE) for n in range(jobs)))
    return path.read_bytes()
