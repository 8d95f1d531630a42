"""What the journal does when its file is damaged, before it is opened or while it is used."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
from pathlib import Path

import pytest
from underpaint_backend.server.journal import Contents, EventRow, JournalError
from underpaint_backend.server.journal.statements import VERSION

from tests.backend.server.journals import OWNER, SESSION, beside, event, filled, job, opened

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


async def set_aside(path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """Open a journal that must be found damaged; returns the file that was set aside."""
    before = set(path.parent.iterdir())
    async with opened(path) as (journal, contents):
        assert contents == Contents()
        await journal.open_session(SESSION)
    (aside,) = {
        file for file in set(path.parent.iterdir()) - before if "damaged" in file.name and file.suffix == ".sqlite"
    }
    assert f"It is kept as {aside.name}, and an empty one begins" in caplog.text
    async with opened(path) as (_, contents):
        assert contents.sessions == (SESSION,)
    return aside


# Damage that is found when the journal is opened.


@pytest.mark.parametrize("size", [1, 99, 511, 512, 4096, 10_000])
async def test_garbage_is_set_aside(path: Path, caplog: pytest.LogCaptureFixture, size: int) -> None:
    """A file that is no database is kept under another name, unchanged."""
    garbage = random.Random(size).randbytes(size)
    path.write_bytes(garbage)
    assert (await set_aside(path, caplog)).read_bytes() == garbage


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
async def test_a_truncated_journal_is_set_aside(path: Path, caplog: pytest.LogCaptureFixture, share: float) -> None:
    """A file that was cut is not taken for a whole one."""
    whole = await filled(path)
    path.write_bytes(whole[: int(len(whole) * share)])
    assert (await set_aside(path, caplog)).read_bytes() == whole[: int(len(whole) * share)]


@pytest.mark.parametrize("page", [0, 2, 3, 5, 20, -1])
async def test_a_damaged_page_is_found(path: Path, caplog: pytest.LogCaptureFixture, page: int) -> None:
    """Garbage in one page of a real journal is found by the check at the opening, whichever page it is."""
    damaged = bytearray(await filled(path))
    at = page % (len(damaged) // PAGE) * PAGE
    damaged[at : at + PAGE] = random.Random(page).randbytes(PAGE)
    path.write_bytes(damaged)
    assert (await set_aside(path, caplog)).read_bytes() == damaged


@pytest.mark.parametrize(
    "statement",
    [
        f"PRAGMA user_version = {VERSION + 1}",
        "ALTER TABLE jobs RENAME COLUMN submit TO message",
        "DROP TABLE usage",
        "UPDATE jobs SET job = CAST(x'ff' AS TEXT) WHERE place = 1",
    ],
)
async def test_a_journal_that_reads_otherwise_is_set_aside(
    path: Path, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    """A later version, other tables, or text that is none: not ours to write into."""
    await filled(path, 3)
    with beside(path) as other:
        other.execute(statement)
    before = path.read_bytes()
    assert (await set_aside(path, caplog)).read_bytes() == before


async def test_someone_elses_database_is_set_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A database of another program is not taken for an empty journal."""
    with beside(path) as other:
        other.execute("CREATE TABLE recipes (name)")
    await set_aside(path, caplog)


async def copy_of_running(path: Path, folder: Path) -> Path:
    """The files that a killed daemon leaves: one job is in the WAL only. Returns the file's path."""
    await filled(path)
    folder.mkdir()
    async with opened(path) as (journal, _):
        await journal.accept(job(1000), event(1000, 1000), OWNER)
        for tail in ("", "-wal", "-shm"):
            shutil.copy(f"{path}{tail}", folder)
    return folder / path.name


async def test_the_wal_goes_with_its_damaged_file(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was not yet in the file itself can still be rescued by hand: the WAL is kept as it was, byte for byte."""
    copy = await copy_of_running(path, tmp_path / "killed")
    wal = copy.with_name("journal.sqlite-wal").read_bytes()
    damaged = bytearray(copy.read_bytes())
    damaged[20 * PAGE : 21 * PAGE] = bytes(PAGE)
    copy.write_bytes(damaged)
    aside = await set_aside(copy, caplog)
    assert aside.read_bytes() == damaged
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == wal


@pytest.mark.parametrize("emptied", [True, False])
async def test_a_wal_without_its_file_is_set_aside(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, emptied: bool
) -> None:
    """If the file itself was emptied or deleted its WAL, which SQLite would delete, is kept."""
    copy = await copy_of_running(path, tmp_path / "killed")
    wal = copy.with_name("journal.sqlite-wal").read_bytes()
    copy.write_bytes(b"") if emptied else copy.unlink()
    aside = await set_aside(copy, caplog)
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == wal


async def test_garbage_in_the_shared_memory_loses_nothing(path: Path, tmp_path: Path) -> None:
    """The index of the WAL is made anew by the first who opens it."""
    copy = await copy_of_running(path, tmp_path / "killed")
    copy.with_name("journal.sqlite-shm").write_bytes(random.Random(1).randbytes(32768))
    async with opened(copy) as (_, contents):
        assert len(contents.jobs) == 201


async def test_a_kill_while_the_file_was_made(path: Path) -> None:
    """A rollback journal that was left behind is played back, and the journal is used."""
    template = path.with_name("template.sqlite")
    with beside(template) as other:
        other.execute("PRAGMA cache_size = 1")
        other.execute("BEGIN")
        other.execute("CREATE TABLE half (made)")
        other.execute("INSERT INTO half VALUES (zeroblob(100000))")
        shutil.copy(template, path)
        shutil.copy(f"{template}-journal", f"{path}-journal")
    assert path.stat().st_size > 0
    async with opened(path) as (journal, contents):
        assert contents == Contents()
        await journal.open_session(SESSION)
    assert not list(path.parent.glob("*damaged*"))


async def test_a_damaged_journal_never_overwrites_another(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Three damaged journals within a second are three files, each with its own bytes."""
    kept = {}
    for number in range(3):
        garbage = b"garbage %d" % number * 100
        path.write_bytes(garbage)
        caplog.clear()
        kept[await set_aside(path, caplog)] = garbage
    assert {file: file.read_bytes() for file in kept} == kept
    assert len(kept) == 3


async def test_an_empty_file_is_an_empty_journal(path: Path) -> None:
    """A daemon that was killed before its first write leaves nothing to be set aside."""
    path.touch()
    async with opened(path) as (journal, contents):
        assert contents == Contents()
        await journal.open_session(SESSION)
    assert {file.name for file in path.parent.iterdir()} == {"journal.sqlite", "journal.sqlite.lock"}


# Damage that is found while the daemon runs.


async def test_damage_while_running_is_told_and_survived(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who writes into a damaged page is told, the log says it once, and later a new journal begins by itself."""
    await filled(path, 2000)
    async with opened(path, reopen_after=0.6) as (journal, contents):
        assert len(contents.jobs) == 2000
        with beside(path) as other:
            other.execute("PRAGMA application_id = 1")  # a change by another makes the journal read from the disk
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek(2 * PAGE)
            file.write(random.Random(1).randbytes(path.stat().st_size - 2 * PAGE))
        for _ in range(3):
            with pytest.raises(JournalError, match="journal_unavailable: database disk image is malformed"):
                await journal.end(EventRow("s", 9000, "job-7", b"done"), 300.0)
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        await asyncio.sleep(0.65)
        await journal.open_session(SESSION)
        await journal.accept(job(1), event(1, 1), OWNER)
        assert "can be used again" in caplog.text
    assert list(path.parent.glob("journal.damaged-*.sqlite"))
