"""The journal's file: opening it, making sure that it is whole, and setting a damaged one aside."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from .rows import Contents
from .statements import VERSION, create, read, upgrade

log = logging.getLogger(__name__)

COMPANIONS = ("-wal", "-shm", "-journal")
"""What SQLite appends to the name of a file for those that belong to it."""
KEPT_PAGES = 1024
"""Free pages of 4 KiB that stay in the file for what comes next; those beyond go back to the disk."""
MIN_PAGE = 512
"""No database has fewer bytes, but for an empty one."""
MAX_RETURNED_PAGES = 256
"""How many free pages go back to the disk at once, so that nobody waits long for it."""

# Flushed on every commit: a job that was accepted survives a power cut, not only a kill. It costs 0.2 ms for a whole
# group of operations and 0.02 ms without (NORMAL), on ext4 on a virtual disk, said by: python -m timeit -s "import
# sqlite3; c = sqlite3.connect('t.sqlite', isolation_level=None); c.execute('PRAGMA journal_mode=WAL');
# c.execute('PRAGMA synchronous=FULL'); c.execute('CREATE TABLE IF NOT EXISTS t (a)')" "c.execute('INSERT INTO t
# VALUES (1)')"
SETTINGS = (
    "PRAGMA auto_vacuum = INCREMENTAL",  # only before the first table, and so before all else
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -256",  # KiB; what is written is seldom read, and 2 MiB would fill up over thousands of jobs
    "PRAGMA wal_autocheckpoint = 1000",  # pages
    "PRAGMA journal_size_limit = 4194304",  # bytes that a WAL keeps which grew beyond it
)


class Damaged(sqlite3.DatabaseError):
    """The file is not a journal that can be used here."""


def open_file(path: Path, max_bytes: int | None, busy_timeout: float) -> tuple[sqlite3.Connection, Contents]:
    """A connection to the journal in `path`, and what it holds; one that is damaged or of a later version is set aside.

    The caller has claimed it. `max_bytes` bounds the file without its WAL; `busy_timeout` is in seconds.
    Raises `OSError` or `sqlite3.Error` if it cannot be opened or written.
    """
    try:
        return _open_whole(path, max_bytes, busy_timeout)
    except Damaged as damage:
        aside = set_aside(path)
        log.error("the journal %s is damaged: %s. It is kept as %s, and an empty one begins", path, damage, aside.name)
        return _open_whole(path, max_bytes, busy_timeout)


def set_aside(path: Path) -> Path:
    """Rename a journal with its companions and return its new name, which nothing had before.

    The file itself goes last: SQLite deletes the WAL of a file that is empty.
    """
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = (f"{stamp}{f'-{n}' if n else ''}" for n in itertools.count())
    free = (path.with_name(f"{path.stem}.damaged-{name}{path.suffix}") for name in names)
    aside = next(new for new in free if not any(os.path.lexists(f"{new}{tail}") for tail in ("", *COMPANIONS)))
    for tail in (*COMPANIONS, ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{tail}", f"{aside}{tail}")
    return aside


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done in the context, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # some errors have rolled back already
            connection.execute("ROLLBACK")
        raise


def shrink(connection: sqlite3.Connection) -> None:
    """Give free pages back to the disk if there are many. It may fail, and then the next time does it."""
    with contextlib.suppress(sqlite3.Error):
        surplus = _number(connection, "freelist_count") - KEPT_PAGES
        if surplus > 0:
            # One step frees one page. As no step has a row, only executescript takes them all.
            connection.executescript(f"PRAGMA incremental_vacuum({min(surplus, MAX_RETURNED_PAGES)})")


def _open_whole(path: Path, max_bytes: int | None, busy_timeout: float) -> tuple[sqlite3.Connection, Contents]:
    _make_private(path)
    if not path.is_file():
        raise OSError(errno.EINVAL, "its path is not that of a file")
    _inspect(path, busy_timeout)
    connection = _connect(path, "rw", busy_timeout)
    try:
        with _damage_named():
            _prepare(connection, max_bytes)
            return connection, read(connection)
    except BaseException:
        connection.close()
        raise


def _make_private(path: Path) -> None:
    """Make an empty file that only its owner can read: prompts are private. SQLite gives its WAL the same mode."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _inspect(path: Path, busy_timeout: float) -> None:
    """Raises `Damaged` if the file is not a whole journal of this version or an earlier one, nor empty.

    It is opened for reading only, so that closing it moves nothing from the WAL into a file that may be damaged. A
    rollback journal must be played back first, though; it is there if the file was being made, or cannot have a WAL.
    """
    _examine_sizes(path)
    mode = "rw" if os.path.exists(f"{path}-journal") else "ro"
    with contextlib.closing(_connect(path, mode, busy_timeout)) as connection, _damage_named():
        version = _number(connection, "user_version")
        empty = version == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
        if not 1 <= version <= VERSION and not empty:
            raise Damaged(f"its version is {version}, and those up to {VERSION} are known")
        (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if finding != "ok":
            raise Damaged(finding)


def _examine_sizes(path: Path) -> None:
    """Raises `Damaged` for files that SQLite would take for empty ones, and overwrite."""
    size = path.stat().st_size
    if 0 < size < MIN_PAGE:
        raise Damaged("it is too short")
    with contextlib.suppress(FileNotFoundError):
        if size == 0 and os.stat(f"{path}-wal").st_size > 0:
            raise Damaged("it is empty, and its WAL is not")


def _prepare(connection: sqlite3.Connection, max_bytes: int | None) -> None:
    for setting in SETTINGS:
        connection.execute(setting)
    if max_bytes is not None:
        connection.execute(f"PRAGMA max_page_count = {max(1, max_bytes // _number(connection, 'page_size'))}")
    with transaction(connection):  # also when there is nothing to do: it tells whether the file can be written
        if version := _number(connection, "user_version"):
            upgrade(connection, version)
        else:
            create(connection)


def _connect(path: Path, mode: str, busy_timeout: float) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=busy_timeout, isolation_level=None)


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(value)


@contextlib.contextmanager
def _damage_named() -> Iterator[None]:
    """Raise `Damaged` for those errors of SQLite that speak of the file rather than of the way to it."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        # No code: a text that is not UTF-8. SQLITE_ERROR: a table or a column is missing.
        code = getattr(error, "sqlite_errorcode", None)
        if type(error) is sqlite3.DatabaseError or code in (None, sqlite3.SQLITE_ERROR):
            raise Damaged(str(error)) from error
        raise
