"""The journal's tables, and what each operation does to them.

Every function here runs inside a transaction that its caller began; it raises `sqlite3.Error`, `NotInJournal` or
`Contradiction`, and the caller rolls back.
"""

from __future__ import annotations

import sqlite3

from .rows import Contents, Contradiction, EventRow, JobRow, JournalError, NotInJournal, SessionRow

VERSION = 2  # kept in the file as its user_version

# The checks on types make damage that left the file's structure whole visible to PRAGMA quick_check.
SCHEMA = (
    """CREATE TABLE sessions (
        place INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        client TEXT NOT NULL,
        reserved INTEGER NOT NULL CHECK (typeof(reserved) = 'integer'))""",
    """CREATE TABLE jobs (
        place INTEGER PRIMARY KEY,
        session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        job TEXT NOT NULL,
        submit BLOB NOT NULL CHECK (typeof(submit) = 'blob'),
        attempts INTEGER NOT NULL CHECK (typeof(attempts) = 'integer'),
        work INTEGER NOT NULL CHECK (typeof(work) = 'integer'),
        day TEXT NOT NULL,
        ended REAL CHECK (typeof(ended) IN ('real', 'null')),
        UNIQUE (session, job))""",
    """CREATE TABLE events (
        session TEXT NOT NULL,
        seq INTEGER NOT NULL CHECK (typeof(seq) = 'integer'),
        job TEXT NOT NULL,
        message BLOB NOT NULL CHECK (typeof(message) = 'blob'),
        UNIQUE (session, seq),
        FOREIGN KEY (session, job) REFERENCES jobs (session, job) ON DELETE CASCADE)""",
    "CREATE INDEX events_of_job ON events (session, job)",
    """CREATE TABLE usage (
        owner TEXT NOT NULL,
        day TEXT NOT NULL,
        work INTEGER NOT NULL CHECK (typeof(work) = 'integer'),
        PRIMARY KEY (owner, day)) WITHOUT ROWID""",
)

UPGRADES = {
    1: (  # What the jobs in it were charged is nowhere in it: nothing is taken back of them.
        "ALTER TABLE jobs ADD COLUMN work INTEGER NOT NULL DEFAULT 0 CHECK (typeof(work) = 'integer')",
        "ALTER TABLE jobs ADD COLUMN day TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE jobs DROP COLUMN submitted",
        "ALTER TABLE sessions DROP COLUMN touched",
    ),
}
"""What makes a journal of an earlier version one of the version after it."""


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    _execute(connection, *SCHEMA, f"PRAGMA user_version = {VERSION}")


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Make a journal of an earlier version one of this version; nothing happens if it is that already."""
    for earlier in range(version, VERSION):
        _execute(connection, *UPGRADES[earlier], f"PRAGMA user_version = {earlier + 1}")


def read(connection: sqlite3.Connection) -> Contents:
    """All that the journal holds."""
    execute = connection.execute
    sessions = execute("SELECT id, owner, client, reserved FROM sessions ORDER BY place")
    jobs = execute("SELECT session, job, submit, attempts, work, day, ended FROM jobs ORDER BY place")
    events = execute("SELECT session, seq, job, message FROM events ORDER BY session, seq")
    usage = execute("SELECT owner, day, work FROM usage")
    return Contents(
        tuple(SessionRow(*row) for row in sessions),
        tuple(JobRow(*row) for row in jobs),
        tuple(EventRow(*row) for row in events),
        {(owner, day): work for owner, day, work in usage},
    )


def open_session(connection: sqlite3.Connection, row: SessionRow) -> None:
    """Keep a session. One that is there already stays whose it is, and what it reserved stays reserved."""
    connection.execute(
        """INSERT INTO sessions (id, owner, client, reserved) VALUES (?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET reserved = max(reserved, excluded.reserved)""",
        (row.id, row.owner, row.client, row.reserved),
    )


def reserve(connection: sqlite3.Connection, session: str, reserved: int) -> None:
    """Sequence numbers below `reserved` may be used from now on; a smaller number than before changes nothing."""
    _update(connection, "UPDATE sessions SET reserved = max(reserved, ?) WHERE id = ?", reserved, session)


def accept(connection: sqlite3.Connection, job: JobRow, event: EventRow, owner: str) -> None:
    """Keep a job with its first event, and charge `owner`; nothing happens if the session has a job of this name."""
    if _holds(connection, job.session, job.job):
        return
    _leave_room(connection)
    connection.execute(
        "INSERT INTO jobs (session, job, submit, attempts, work, day, ended) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (job.session, job.job, job.submit, job.attempts, job.work, job.day, job.ended),
    )
    append(connection, event)
    connection.execute(
        """INSERT INTO usage (owner, day, work) VALUES (?, ?, ?)
        ON CONFLICT (owner, day) DO UPDATE SET work = work + excluded.work""",
        (owner, job.day, job.work),
    )


def start(connection: sqlite3.Connection, session: str, job: str, attempts: int) -> None:
    """The job is started for the `attempts`-th time."""
    _update(connection, "UPDATE jobs SET attempts = ? WHERE session = ? AND job = ?", attempts, session, job)


def append(connection: sqlite3.Connection, event: EventRow) -> None:
    """Keep an event of a job that the journal holds."""
    connection.execute(
        "INSERT INTO events (session, seq, job, message) VALUES (?, ?, ?, ?)",
        (event.session, event.seq, event.job, event.message),
    )


def end(connection: sqlite3.Connection, event: EventRow, ended: float, refund: int) -> None:
    """Keep the terminal event of a job, and take back so much of its charge, never below nothing.

    Raises `Contradiction` if it has ended already.
    """
    key = (event.session, event.job)
    sql = "UPDATE jobs SET ended = ? WHERE session = ? AND job = ? AND ended IS NULL"
    if connection.execute(sql, (ended, *key)).rowcount == 0 and _holds(connection, *key):
        raise Contradiction(f"the job {event.job} has ended already")
    append(connection, event)
    connection.execute(
        """UPDATE usage SET work = max(0, work - ?) WHERE (owner, day) = (
            SELECT owner, day FROM jobs JOIN sessions ON id = session WHERE session = ? AND job = ?)""",
        (refund, *key),
    )


def refund(connection: sqlite3.Connection, owner: str, day: str, work: int) -> None:
    """Take back what was charged, never below nothing."""
    connection.execute(
        "UPDATE usage SET work = max(0, work - ?) WHERE owner = ? AND day = ?",
        (work, owner, day),
    )


def forget(connection: sqlite3.Connection, session: str, job: str) -> None:
    """Remove a job with its events, if it is there."""
    connection.execute("DELETE FROM jobs WHERE session = ? AND job = ?", (session, job))


def forget_session(connection: sqlite3.Connection, session: str) -> None:
    """Remove a session with its jobs and their events, if it is there."""
    connection.execute("DELETE FROM sessions WHERE id = ?", (session,))


def forget_usage_before(connection: sqlite3.Connection, day: str) -> None:
    """Remove what was charged on days before `day`."""
    connection.execute("DELETE FROM usage WHERE day < ?", (day,))


def _execute(connection: sqlite3.Connection, *statements: str) -> None:
    for statement in statements:
        connection.execute(statement)


def _holds(connection: sqlite3.Connection, session: str, job: str) -> bool:
    rows = connection.execute("SELECT 1 FROM jobs WHERE session = ? AND job = ?", (session, job))
    return rows.fetchone() is not None


def _update(connection: sqlite3.Connection, sql: str, *values: object) -> None:
    if connection.execute(sql, values).rowcount == 0:
        raise NotInJournal()


def _leave_room(connection: sqlite3.Connection) -> None:
    """Refuse a job while less than an eighth of the file is free, so that the jobs that were accepted can end."""
    limit, size, free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("max_page_count", "page_count", "freelist_count")
    )
    if size - free > limit * 7 // 8:
        raise JournalError("journal_full", "jobs whose results were not fetched fill it")
