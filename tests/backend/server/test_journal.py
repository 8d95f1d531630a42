"""The journal's operations on a real file: what is kept, in which order, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from asyncio import Future
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from underpaint_backend.server.journal import (
    Contents,
    Contradiction,
    EventRow,
    JobRow,
    Journal,
    JournalError,
    NotInJournal,
    SessionRow,
)

from tests.backend.server.journals import DAY, OWNER, SESSION, beside, bytes_on_disk, opened


def job(name: str, session: str = "s", day: str = DAY) -> JobRow:
    return JobRow(session, name, b"submit \x00\xff " + name.encode(), 0, 5, day, None)


def event(seq: int, name: str, session: str = "s", message: bytes = b"\x00event") -> EventRow:
    return EventRow(session, seq, name, message)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    """An open journal with one session."""
    async with opened(path) as (journal, _):
        await journal.open_session(SESSION)
        yield journal


async def kept(journal: Journal, path: Path) -> Contents:
    """What the next daemon finds after this one."""
    await journal.close()
    async with opened(path) as (_, contents):
        return contents


async def outcomes(*writes: Awaitable[None]) -> list[type[BaseException] | None]:
    """The class of the error of each write; None where there is none."""
    results = await asyncio.gather(*writes, return_exceptions=True)
    return [None if result is None else type(result) for result in results]


async def test_a_new_journal_is_empty_and_private(path: Path) -> None:
    """The first daemon finds nothing, and makes a file that others cannot read."""
    async with opened(path) as (journal, contents):
        assert contents == Contents()
        await journal.open_session(SESSION)
        files = [file for file in path.parent.iterdir() if not file.name.endswith(".lock")]
        assert {file.name for file in files} == {"journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"}
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)


async def test_everything_is_there_after_a_restart(journal: Journal, path: Path) -> None:
    """Sessions, jobs, events and usage come back as they were, byte for byte."""
    journal.reserve("s", 64)
    journal.accept(job("a"), event(0, "a"), OWNER)
    journal.start("s", "a", 1)
    journal.append(event(1, "a", message=bytes(range(256))))
    await journal.end(event(2, "a", message=b""), 300.5)
    assert await kept(journal, path) == Contents(
        (SessionRow("s", "ada", "krita", 64),),
        (JobRow("s", "a", job("a").submit, 1, 5, DAY, 300.5),),
        (event(0, "a"), event(1, "a", message=bytes(range(256))), event(2, "a", message=b"")),
        {("ada", "2026-11-23"): 5},
    )


async def test_jobs_come_back_in_the_order_in_which_they_were_accepted(journal: Journal, path: Path) -> None:
    """The queue of the next daemon is that of the last, whatever the jobs are called and whichever are gone."""
    names = ["z", "m", "a", "q"]
    for seq, name in enumerate(names):
        journal.accept(job(name), event(9 - seq, name), OWNER)
    await journal.forget("s", "m")
    await journal.accept(job("m"), event(20, "m"), OWNER)
    contents = await kept(journal, path)
    assert [row.job for row in contents.jobs] == ["z", "a", "q", "m"]
    assert [row.seq for row in contents.events] == [6, 7, 9, 20]


async def test_futures_are_done_in_the_order_of_the_calls(journal: Journal) -> None:
    """Whoever waits for the second operation may rely on the first."""
    done: list[int] = []

    async def reserve(number: int) -> None:
        await journal.reserve("s", number)
        done.append(number)

    await asyncio.gather(*(reserve(number) for number in range(50)))
    assert done == list(range(50))


async def test_what_waits_is_one_transaction(path: Path) -> None:
    """A burst of operations flushes the disk once: the file's data version, as others see it, grows by one."""
    async with opened(path) as (journal, _):
        await journal.open_session(SESSION)
        with beside(path) as other:
            other.execute("BEGIN IMMEDIATE")  # the journal's thread waits for us with its first group
            first = journal.reserve("s", 1)
            await asyncio.sleep(0.05)
            rest = [journal.accept(job(f"{n}"), event(n, f"{n}"), OWNER) for n in range(100)]
            before = path.with_name("journal.sqlite-wal").stat().st_size
            other.execute("COMMIT")
            await asyncio.gather(first, *rest)
            frames = (path.with_name("journal.sqlite-wal").stat().st_size - before) / 4120
            # 100 transactions would write the pages of jobs, events and indexes 100 times, over 600 frames.
            assert frames < 60


async def test_one_bad_operation_does_not_take_the_others_with_it(journal: Journal, path: Path) -> None:
    """Of a group only those fail that are to blame."""
    await journal.accept(job("a"), event(0, "a"), OWNER)
    got = await outcomes(
        journal.accept(job("b"), event(1, "b"), OWNER),
        journal.append(event(0, "a")),
        journal.accept(job("c", "nobody"), event(0, "c", "nobody"), OWNER),
        journal.reserve("s", 500),
        journal.append(event(2, "b", message="text")),  # type: ignore[arg-type]
    )
    assert got == [None, Contradiction, NotInJournal, None, Contradiction]
    contents = await kept(journal, path)
    assert [row.job for row in contents.jobs] == ["a", "b"]
    assert contents.sessions[0].reserved == 500
    assert contents.usage == {("ada", "2026-11-23"): 10}


@pytest.mark.parametrize("value", [object(), 1 << 70])
async def test_a_value_that_sqlite_cannot_keep_blames_its_operation(journal: Journal, value: Any) -> None:
    """A mistake of the caller is told to the caller, and the journal goes on."""
    with pytest.raises(Exception, match=r"(?i)type|large") as caught:
        await journal.reserve("s", value)
    assert not isinstance(caught.value, JournalError)
    await journal.reserve("s", 1)


async def test_the_same_job_twice_is_one_job(journal: Journal, path: Path) -> None:
    """A submit that is sent again adds no row, no event and no charge, not even with another number."""
    for seq in (0, 0, 7):
        await journal.accept(job("a"), event(seq, "a"), OWNER)
    contents = await kept(journal, path)
    assert (contents.jobs, contents.events) == ((job("a"),), (event(0, "a"),))
    assert contents.usage == {("ada", "2026-11-23"): 5}


async def test_two_sessions_may_name_a_job_alike(journal: Journal, path: Path) -> None:
    """Names of jobs and sequence numbers belong to their session."""
    await journal.open_session(SessionRow("t", "bob", "krita", 0))
    await journal.accept(job("a"), event(0, "a"), OWNER)
    await journal.accept(job("a", "t"), event(0, "a", "t"), "bob")
    await journal.forget("s", "a")
    contents = await kept(journal, path)
    assert (contents.jobs, contents.events) == ((job("a", "t"),), (event(0, "a", "t"),))


async def test_an_accept_is_all_or_nothing(journal: Journal, path: Path) -> None:
    """If the event's number is taken there is no job and no charge either."""
    await journal.accept(job("a"), event(0, "a"), OWNER)
    with pytest.raises(Contradiction):
        await journal.accept(job("b"), event(0, "b"), OWNER)
    contents = await kept(journal, path)
    assert contents.jobs == (job("a"),)
    assert contents.usage == {("ada", "2026-11-23"): 5}


async def test_a_job_ends_once(journal: Journal, path: Path) -> None:
    """A second terminal event is refused, also in the same group, and the first stays."""
    await journal.accept(job("a"), event(0, "a"), OWNER)
    got = await outcomes(journal.end(event(1, "a"), 300.0), journal.end(event(2, "a"), 301.0))
    assert got == [None, Contradiction]
    contents = await kept(journal, path)
    assert contents.jobs[0].ended == 300.0
    assert [row.seq for row in contents.events] == [0, 1]


async def test_an_end_without_its_event_is_no_end(journal: Journal, path: Path) -> None:
    """If the terminal event cannot be kept the job has not ended."""
    await journal.accept(job("a"), event(0, "a"), OWNER)
    with pytest.raises(Contradiction):
        await journal.end(event(0, "a"), 300.0)
    assert (await kept(journal, path)).jobs[0].ended is None


async def test_what_is_not_there_cannot_be_changed(journal: Journal) -> None:
    """Nobody is told that something is safe which the journal does not hold; to forget it is no error."""
    assert set(
        await outcomes(
            journal.reserve("x", 1),
            journal.start("s", "x", 1),
            journal.append(event(0, "x")),
            journal.end(event(0, "x"), 1.0),
            journal.accept(job("x", "x"), event(0, "x", "x"), OWNER),
        )
    ) == {NotInJournal}
    assert set(
        await outcomes(journal.forget("s", "x"), journal.forget_session("x"), journal.refund("x", "2026-01-01", 1))
    ) == {None}


async def test_a_session_keeps_its_owner_and_its_numbers(journal: Journal, path: Path) -> None:
    """Opening a session again neither gives it away nor lets a number be used twice."""
    await journal.reserve("s", 64)
    await journal.reserve("s", 32)
    await journal.open_session(SessionRow("s", "mallory", "krita", 8))
    assert (await kept(journal, path)).sessions == (SessionRow("s", "ada", "krita", 64),)


async def test_forgetting_a_session_forgets_all_that_is_its(journal: Journal, path: Path) -> None:
    """Jobs and events go with their session; what was charged stays."""
    for name in ("a", "b"):
        await journal.accept(job(name), event(ord(name), name), OWNER)
    await journal.forget_session("s")
    assert await kept(journal, path) == Contents(usage={("ada", "2026-11-23"): 10})


async def test_the_end_of_a_job_gives_back_with_it(journal: Journal, path: Path) -> None:
    """What of its charge was not used, once: an end that is refused gives back nothing."""
    for n, name in enumerate("ab"):
        await journal.accept(job(name), event(n, name), OWNER)
    await journal.end(event(2, "a"), 300.0, 4)
    assert await outcomes(journal.end(event(3, "a"), 300.0, 4)) == [Contradiction]
    await journal.end(event(4, "b"), 300.0)
    assert (await kept(journal, path)).usage == {("ada", DAY): 6}


async def test_usage_is_refunded_and_forgotten_by_day(journal: Journal, path: Path) -> None:
    """A refund never makes a debt of the daemon; past days can go."""
    for n, day in enumerate(("2026-11-22", "2026-11-23")):
        await journal.accept(job(day, day=day), event(n, day), OWNER)
    await journal.refund("ada", "2026-11-23", 2)
    await journal.refund("ada", "2026-11-22", 50)
    assert (await kept(journal, path)).usage == {("ada", "2026-11-22"): 0, ("ada", "2026-11-23"): 3}
    async with opened(path) as (again, _):
        await again.forget_usage_before("2026-11-23")
        assert (await kept(again, path)).usage == {("ada", "2026-11-23"): 3}


async def test_closing_commits_what_was_called_before(journal: Journal, path: Path) -> None:
    """No future is left open by a close, and none is committed afterwards."""
    writes: list[Future[None]] = [journal.accept(job(f"{n}"), event(n, f"{n}"), OWNER) for n in range(200)]
    await journal.close()
    assert all(write.done() and write.exception() is None for write in writes)
    with pytest.raises(JournalError, match="journal_unavailable: it is closed"):
        await journal.reserve("s", 1)
    await journal.close()
    assert len((await kept(journal, path)).jobs) == 200


async def test_closing_leaves_nothing_behind(path: Path) -> None:
    """The thread ends and the WAL is folded into the file."""
    async with opened(path) as (journal, _):
        await journal.open_session(SESSION)
        assert "journal" in {thread.name for thread in threading.enumerate()}
        assert bytes_on_disk(path) > path.stat().st_size > 0
    assert "journal" not in {thread.name for thread in threading.enumerate()}
    assert bytes_on_disk(path) == path.stat().st_size


async def test_a_journal_that_was_never_opened_can_be_closed(path: Path) -> None:
    """Closing what is not open is no error, and makes no file."""
    journal = Journal(path)
    await journal.close()
    with pytest.raises(JournalError):
        await journal.reserve("s", 1)
    assert not path.exists()


async def test_who_stops_waiting_does_not_stop_the_write(journal: Journal, path: Path) -> None:
    """A cancelled future is left alone; what it stood for is committed with the rest."""
    cancelled = journal.accept(job("a"), event(0, "a"), OWNER)
    cancelled.cancel()
    await journal.accept(job("b"), event(1, "b"), OWNER)
    assert [row.job for row in (await kept(journal, path)).jobs] == ["a", "b"]


async def test_who_stops_waiting_for_the_opening_can_still_close(path: Path) -> None:
    """A daemon that is told to stop while it opens a large journal stops cleanly."""
    journal = Journal(path)
    opening = asyncio.create_task(journal.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await journal.close()


def test_a_loop_that_was_closed_ends_the_thread(path: Path) -> None:
    """A daemon that broke without closing its journal commits what it asked for, and keeps no thread and no lock."""

    async def leave_open() -> None:
        journal = Journal(path)
        await journal.open()
        other.execute("BEGIN IMMEDIATE")
        journal.open_session(SESSION)

    async def contents() -> Contents:
        async with opened(path) as (_, contents):
            return contents

    path.parent.mkdir()
    with beside(path) as other:
        asyncio.run(leave_open())
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "journal")
        other.execute("COMMIT")
        thread.join(10)
    assert asyncio.run(contents()).sessions == (SESSION,)


async def test_the_loop_never_waits_for_the_disk(path: Path) -> None:
    """While somebody locks the file, the event loop goes on and the write waits in its thread."""
    async with opened(path) as (journal, _):
        with beside(path) as other:
            other.execute("BEGIN IMMEDIATE")
            write = journal.open_session(SESSION)
            turns = 0
            for _ in range(20):
                await asyncio.sleep(0.005)
                turns += not write.done()
            other.execute("COMMIT")
        await write
        assert turns == 20
