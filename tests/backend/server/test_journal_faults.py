"""What the journal does when there is no room or no way to its file, and when its daemon is killed."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 while another user is played nothing can be imported
import contextlib
import logging
import os
import random
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from underpaint_backend.server.journal import Contents, EventRow, Journal, JournalError, SessionRow

from tests.backend.server.journals import OWNER, SESSION, beside, bytes_on_disk, event, filled, job, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


async def reason(path: Path, caplog: pytest.LogCaptureFixture) -> str:
    """Why a journal cannot be opened: it says so in the log once, and with each try to everyone who writes."""
    async with opened(path, busy_timeout=0.1, reopen_after=0.0) as (journal, contents):
        assert contents == Contents()
        details = set()
        for _ in range(2):
            with pytest.raises(JournalError) as caught:
                await journal.open_session(SESSION)
            assert caught.value.code == "journal_unavailable"
            details.add(caught.value.detail)
    (detail,) = details
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.getMessage() == f"the journal {path} cannot be used, and no job is accepted: {detail}"
    return detail


# No room.


async def fill_up(journal: Journal) -> int:
    """Accept jobs until there is no room; returns how many there are."""
    for number in range(10_000):
        try:
            await journal.accept(job(number, 3000), event(number, number), OWNER)
        except JournalError as error:
            full = error
            break
    assert full.code == "journal_full"
    return number


async def test_a_full_journal_says_so_and_works_again_with_room(path: Path) -> None:
    """Beyond its bound no job is accepted; once some are forgotten there is room, and the file stays in its bound."""
    async with opened(path, max_bytes=1 << 20) as (journal, _):
        await journal.open_session(SESSION)
        count = await fill_up(journal)
        assert 150 < count < 350
        for number in range(10):
            await journal.forget("s", f"job-{number}")
        assert await fill_up(journal) == count  # those that are there already are accepted, and cost nothing
    assert path.stat().st_size <= 1 << 20
    async with opened(path, max_bytes=1 << 20) as (_, contents):
        assert len(contents.jobs) == count


async def test_jobs_that_were_accepted_can_end_in_a_full_journal(path: Path) -> None:
    """An eighth of the room is not for new jobs."""
    async with opened(path, max_bytes=1 << 20) as (journal, _):
        await journal.open_session(SESSION)
        for number in range(await fill_up(journal)):
            await journal.end(EventRow("s", 10_000 + number, f"job-{number}", b"done"), 300.0)


async def test_events_stop_at_the_bound_as_well(path: Path) -> None:
    """The last eighth is no way around the bound; in a group only those fail that do not fit."""
    async with opened(path, max_bytes=1 << 20) as (journal, _):
        await journal.open_session(SESSION)
        await journal.accept(job(0), event(0, 0), OWNER)
        large = [EventRow("s", seq, "job-0", bytes(300_000)) for seq in range(1, 7)]
        small = [EventRow("s", seq, "job-0", b"small") for seq in range(11, 17)]
        both = [row for pair in zip(large, small, strict=True) for row in pair]
        results = await asyncio.gather(*map(journal.append, both), return_exceptions=True)
        assert results[1::2] == [None] * 6
        assert [getattr(error, "code", None) for error in results[::2]] == [None] * 3 + ["journal_full"] * 3
        await journal.forget("s", "job-0")
        await journal.accept(job(1, 300_000), event(1, 1), OWNER)


async def test_a_bound_that_is_too_small(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A bound below one page leaves no room, which is not the same as no bound."""
    async with opened(path, max_bytes=1) as (journal, _):
        with pytest.raises(JournalError, match="journal_full"):
            await journal.open_session(SESSION)


async def test_room_that_another_takes_and_gives_back(path: Path) -> None:
    """It does not matter who filled the file and who emptied it."""
    async with opened(path, max_bytes=1 << 20) as (journal, _):
        await journal.open_session(SESSION)
        with beside(path) as other:
            other.execute("CREATE TABLE ballast (bytes)")
            other.execute("INSERT INTO ballast VALUES (zeroblob(2000000))")
            with pytest.raises(JournalError, match="journal_full"):
                await journal.accept(job(0), event(0, 0), OWNER)
            with pytest.raises(JournalError, match="journal_full"):
                await journal.open_session(SessionRow("t", "ada" * 5000, "krita", 0))
            other.execute("DELETE FROM ballast")
        await journal.accept(job(0, 100_000), event(0, 0), OWNER)


async def test_the_file_does_not_grow_with_what_was_forgotten(path: Path) -> None:
    """Five thousand jobs come and go, some of them large; file and WAL stay small."""
    largest = 0
    async with opened(path) as (journal, _):
        await journal.open_session(SESSION)
        for number in range(5000):
            journal.accept(job(number, 20_000 if number % 10 else 100_000), event(number, number), OWNER)
            journal.end(EventRow("s", 10_000 + number, f"job-{number}", b"done"), 300.0)
            forgotten = journal.forget("s", f"job-{number - 5}")
            if number % 20 == 0:
                await forgotten
                largest = max(largest, bytes_on_disk(path))
        await forgotten
    assert largest < 16 << 20
    assert path.stat().st_size < 3 << 20


async def test_a_burst_gives_its_room_back(path: Path) -> None:
    """After a large session was forgotten the file shrinks, a piece with each write."""
    async with opened(path) as (journal, _):
        await journal.open_session(SESSION)
        await asyncio.gather(*(journal.accept(job(n, 100_000), event(n, n), OWNER) for n in range(200)))
        assert bytes_on_disk(path) > 20_000_000
        await journal.forget_session("s")
        for _ in range(20):
            await journal.open_session(SESSION)
    assert path.stat().st_size < 5_000_000


DISK_FULL = """
    import asyncio, sys
    from pathlib import Path
    from underpaint_backend.server.journal import EventRow, JobRow, Journal, JournalError, SessionRow

    async def main(folder):
        ballast = folder / "ballast"
        journal = Journal(folder / "journal.sqlite", reopen_after=0.0)
        await journal.open()
        await journal.open_session(SessionRow("s", "ada", "krita", 0))
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)): pass
            except OSError:
                pass
        accepted = []
        for number in range(20):
            try:
                await journal.accept(
                    JobRow("s", f"{number}", bytes(20_000), 0, 1, "2026-11-23", None),
                    EventRow("s", number, f"{number}", b""), "ada")
                accepted.append(f"{number}")
            except JournalError as error:
                print(error.code)
            if number == 10:
                ballast.unlink()
        await journal.close()
        journal = Journal(folder / "journal.sqlite")
        assert [job.job for job in (await journal.open()).jobs] == accepted, accepted
        assert accepted[-9:] == [f"{number}" for number in range(11, 20)], accepted
        await journal.close()

    asyncio.run(main(Path(sys.argv[1])))
"""


async def test_a_full_disk(tmp_path: Path) -> None:
    """On a real disk without room jobs are refused, those accepted are kept, and with room all goes on."""
    mount = 'mount -t tmpfs -o size=2m tmpfs "$1" && '
    if (
        sys.platform != "linux"
        or subprocess.run(
            ["unshare", "-rm", "sh", "-c", mount + "true", "sh", tmp_path], capture_output=True
        ).returncode
    ):
        pytest.skip("needs a disk of its own, which only Linux lends")
    command = mount + 'exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, "sh", tmp_path, sys.executable, textwrap.dedent(DISK_FULL)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"journal_full"}


async def test_a_disk_that_is_full_at_the_opening(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When not even the lock's file can be made for want of room, the error says that there is no room."""

    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("underpaint_backend.server.journal.writer.claim", no_room)
    async with opened(path) as (journal, _):
        with pytest.raises(JournalError, match="journal_full: No space left on device"):
            await journal.open_session(SESSION)


# No way to the file.


@contextlib.contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder of nobody's, and their rights: the super-user may write everywhere."""
    nobody = 65534
    privileged = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        if privileged:
            os.chown(folder, nobody, -1)
            os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            if privileged:
                os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
async def test_a_folder_that_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """In a read-only folder the daemon goes on without a journal."""
    with as_nobody() as folder:
        folder.chmod(0o500)
        try:
            assert await reason(folder / "journal.sqlite", caplog) == "Permission denied"
        finally:
            folder.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
async def test_a_file_that_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """A read-only journal is left as it is, neither used nor set aside."""
    with as_nobody() as folder:
        path = folder / "journal.sqlite"
        await filled(path, 3)
        path.chmod(0o400)
        assert await reason(path, caplog) == "attempt to write a readonly database"
        assert not list(folder.glob("*damaged*"))


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
async def test_a_damaged_file_that_cannot_be_renamed(caplog: pytest.LogCaptureFixture) -> None:
    """If a damaged journal cannot be set aside it stays where it is, and none is used."""
    with as_nobody() as folder:
        path = folder / "journal.sqlite"
        path.write_bytes(b"garbage" * 1000)
        folder.joinpath("journal.sqlite.lock").touch()
        folder.chmod(0o500)
        try:
            assert await reason(path, caplog) == "Permission denied"
        finally:
            folder.chmod(0o700)
        assert path.read_bytes() == b"garbage" * 1000


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
async def test_a_file_system_that_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody can make a folder the daemon goes on without a journal."""
    assert await reason(Path("/proc/underpaint/journal.sqlite"), caplog) == "No such file or directory"


async def test_a_path_that_is_a_folder(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder in the journal's place is left alone."""
    path.mkdir()
    assert await reason(path, caplog) == "its path is not that of a file"
    assert path.is_dir()


async def test_a_path_that_can_be_none(caplog: pytest.LogCaptureFixture) -> None:
    """Even a name that no file system knows does not raise at the opening."""
    assert await reason(Path("/tmp/\0/journal.sqlite"), caplog) == "embedded null byte"


async def test_the_journal_heals_when_the_disk_does(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An unusable journal is tried again after a while, not with every write; what it held is kept."""
    await filled(path, 3)
    hidden = path.with_name("hidden")
    path.rename(hidden)
    path.mkdir()
    async with opened(path, reopen_after=0.6) as (journal, contents):
        assert contents == Contents()
        path.rmdir()
        hidden.rename(path)
        with pytest.raises(JournalError):
            await journal.reserve("s", 200)
        await asyncio.sleep(0.65)
        await journal.reserve("s", 200)
        assert f"the journal {path} can be used again" in caplog.text
    async with opened(path) as (_, contents):
        assert (len(contents.jobs), contents.sessions[0].reserved) == (3, 200)


# Others who use the file.


async def test_a_file_that_another_process_locks(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who holds the file for longer than the busy timeout makes writes fail, one sentence in the log, and heal."""
    async with opened(path, busy_timeout=0.1, reopen_after=0.2) as (journal, _):
        with beside(path) as other:
            other.execute("BEGIN IMMEDIATE")
            writes = [journal.open_session(SESSION) for _ in range(20)]
            results = await asyncio.gather(*writes, return_exceptions=True)
            assert {str(error) for error in results} == {"journal_unavailable: database is locked"}
            other.execute("COMMIT")
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        await asyncio.sleep(0.25)
        await journal.open_session(SESSION)


async def test_a_second_daemon_does_not_run_the_same_jobs(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While one daemon has the journal another finds it empty and unavailable; then it may have it."""
    await filled(path, 3)
    async with opened(path) as (first, _):
        assert await reason(path, caplog) == "another daemon uses it"
        second = Journal(path, reopen_after=0.0)
        assert await second.open() == Contents()
        await first.reserve("s", 200)
    await second.reserve("s", 300)
    await second.close()


async def test_a_lock_that_breaks(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system that knows no locks says so; it is not taken for another daemon."""

    def no_locks(descriptor: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("underpaint_backend.file_lock._lock", no_locks)
    assert await reason(path, caplog) == "No locks available"


# A daemon that is killed.

WRITES_UNTIL_KILLED = """
    import asyncio, sys
    from pathlib import Path
    from underpaint_backend.server.journal import EventRow, JobRow, Journal, SessionRow

    async def main(path, first):
        journal = Journal(path)
        await journal.open()
        journal.open_session(SessionRow("s", "ada", "krita", 0))
        async def submit(number):
            while True:
                await journal.accept(
                    JobRow("s", f"{number}", bytes(number % 7 * 3000), 0, 1, "2026-11-23", None),
                    EventRow("s", number, f"{number}", b""), "ada")
                sys.stdout.write(f"{number}\\n")
                sys.stdout.flush()
                number += 8
        await asyncio.gather(*(submit(first + n) for n in range(8)))

    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def test_nothing_accepted_is_lost_to_a_kill(path: Path) -> None:
    """Whenever the daemon is killed, every job whose acceptance was told is in the journal, and the file is whole."""
    chance = random.Random(3)
    told: set[str] = set()
    for round_ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITES_UNTIL_KILLED), path, str(round_ * 1_000_000)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            told.add(process.stdout.readline().strip())
            await asyncio.sleep(chance.uniform(0.0, 0.25))
            process.kill()
            told.update(line.strip() for line in process.stdout if line.endswith("\n"))
        async with opened(path) as (_, contents):
            assert told <= {row.job for row in contents.jobs}
            assert {row.job for row in contents.events} == {row.job for row in contents.jobs}
            assert contents.usage == {("ada", "2026-11-23"): len(contents.jobs)}
        with beside(path) as other:
            assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert other.execute("PRAGMA foreign_key_check").fetchall() == []
    assert len(told) > 50
    assert not list(path.parent.glob("*damaged*"))
