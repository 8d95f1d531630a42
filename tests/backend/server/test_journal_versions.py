"""Journals that an earlier version wrote: they are used, and what was in them is there."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from underpaint_backend.server.journal import Contents, EventRow, JobRow, SessionRow
from underpaint_backend.server.journal.statements import SCHEMA

from tests.backend.server.journals import OWNER, beside, bytes_on_disk, event, job, made_by_version_1, opened

LAST_EVENT = EventRow("s", 1, "a", b"done")
FOUND = Contents(
    (SessionRow("s", "ada", "krita", 64), SessionRow("t", "bob", "krita", 0)),
    (JobRow("s", "a", b"submit", 1, 0, "", 300.5), JobRow("t", "a", b"other", 0, 0, "", None)),
    (EventRow("s", 0, "a", b"accepted"), LAST_EVENT, EventRow("t", 0, "a", b"accepted")),
    {("ada", "2026-11-23"): 5},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal as version 1 wrote it."""
    path = tmp_path / "journal.sqlite"
    made_by_version_1(path)
    with beside(path) as old:
        old.executemany(
            "INSERT INTO sessions (id, owner, client, reserved, touched) VALUES (?, ?, ?, ?, 100.0)",
            [("s", "ada", "krita", 64), ("t", "bob", "krita", 0)],
        )
        old.executemany(
            "INSERT INTO jobs (session, job, submit, attempts, submitted, ended) VALUES (?, ?, ?, ?, 101.5, ?)",
            [("s", "a", b"submit", 1, 300.5), ("t", "a", b"other", 0, None)],
        )
        old.executemany(
            "INSERT INTO events (session, seq, job, message) VALUES (?, ?, ?, ?)",
            [(row.session, row.seq, row.job, row.message) for row in FOUND.events],
        )
        old.execute("INSERT INTO usage (owner, day, work) VALUES ('ada', '2026-11-23', 5)")
    return path


async def test_a_journal_of_version_1_is_used(path: Path) -> None:
    """All that is in it is found, more can be written into it, and it is found again."""
    async with opened(path) as (journal, contents):
        assert contents == FOUND
        await journal.accept(job(7), event(2, 7), OWNER)
        await journal.forget("t", "a")
    async with opened(path) as (_, contents):
        assert contents.jobs == (FOUND.jobs[0], job(7))
        assert contents.events == (*FOUND.events[:2], event(2, 7))
        assert contents.usage == {("ada", "2026-11-23"): 10}
    assert not list(path.parent.glob("*damaged*"))


async def test_it_has_the_tables_of_a_new_one(path: Path, tmp_path: Path) -> None:
    """The same columns with the same checks, whichever way a journal came to be."""
    async with opened(path), opened(tmp_path / "new.sqlite"):
        pass
    with beside(path) as upgraded, beside(tmp_path / "new.sqlite") as new:
        assert columns(upgraded) == columns(new)
        for table, values in (
            ("jobs", "'s', 'x', x'', 0, 1.5, '', NULL"),
            ("jobs", "'s', 'x', 'text', 0, 1, '', NULL"),
        ):
            names = "session, job, submit, attempts, work, day, ended"
            with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
                upgraded.execute(f"INSERT INTO {table} ({names}) VALUES ({values})")
        assert upgraded.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert upgraded.execute("PRAGMA foreign_key_check").fetchall() == []


def columns(journal: sqlite3.Connection) -> dict[str, set[tuple[str, str, int]]]:
    """Of each table, by its name: the name of each column, its type, and whether it must have a value."""
    tables = [name for (name,) in journal.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert len(tables) == sum(statement.startswith("CREATE TABLE") for statement in SCHEMA)
    return {table: {row[1:4] for row in journal.execute(f"PRAGMA table_info({table})")} for table in tables}


async def test_a_full_journal_of_version_1_is_used(path: Path) -> None:
    """It needs no more room than it has, so that nothing is lost when the daemon is replaced."""
    with beside(path) as old:
        old.executemany(
            "INSERT INTO jobs (session, job, submit, attempts, submitted, ended) VALUES ('s', ?, ?, 0, 101.5, NULL)",
            [(f"job-{number}", bytes(1000)) for number in range(900)],
        )
    async with opened(path, max_bytes=bytes_on_disk(path)) as (_, contents):
        assert len(contents.jobs) == 902


async def test_an_upgrade_that_fails_leaves_the_journal_as_it_was(path: Path) -> None:
    """Whoever has the file to himself for too long is waited for, and it is an old journal all the while."""
    with beside(path) as other:
        other.execute("BEGIN IMMEDIATE")
        async with opened(path, busy_timeout=0.05, reopen_after=0.0) as (_, contents):
            assert contents == Contents()
        assert other.execute("PRAGMA user_version").fetchone() == (1,)
        other.execute("COMMIT")
    async with opened(path) as (_, contents):
        assert contents == FOUND
