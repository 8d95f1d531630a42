"""What the book does while its journal is locked, full or closed, and where that lost something or contradicts it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from underpaint_backend.server.book import today
from underpaint_backend.server.journal import JournalError
from underpaint_backend.server.late import TOLD_ANYWAY
from underpaint_protocol.messages import Accepted, Cancelled, Done, Progress, Started

from tests.backend.server.books import accepted, at, journal_in, locked, nothing_is_kept, opened, painted, told
from tests.backend.server.journals import beside


async def test_nothing_is_accepted_that_cannot_be_written_down(tmp_path: Path) -> None:
    """A journal that is not there is told as such, and the job is none; the pixels may be evicted again."""
    (tmp_path / "journal.sqlite").mkdir()
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        with pytest.raises(JournalError):
            await accepted(book, session)
        assert (session.jobs, told(session)) == ({}, [])
        assert await nothing_is_kept(book)
        assert book.usage["anna", today()] == 0


async def test_what_a_full_journal_does_not_take_is_written_down_later(tmp_path: Path) -> None:
    """A result and an end are told when they are written down, and are there after a restart."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        with locked(tmp_path):
            result = await painted(book, job)
            await book.end(job, Done("a", 1.0))
            await book.catch_up()
            assert told(job.session)[-1] == Started("a", 1)
        await asyncio.sleep(0.1)
        await book.catch_up()
        assert told(job.session)[-2:] == [result, Done("a", 1.0)]
    async with opened(tmp_path) as (book, waiting):
        [session] = book.sessions.values()
        assert waiting == []
        assert told(session)[-2:] == [result, Done("a", 1.0)]


async def test_what_a_late_end_gives_back_is_given_back_once(tmp_path: Path) -> None:
    """While the journal takes nothing, a job is cancelled; the next daemon knows that it costs nothing."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await accepted(book, session, "kept", work=2)
        job = await accepted(book, session, "a", work=5)
        with locked(tmp_path):
            await book.end(job, Cancelled("a"))
        assert book.usage["anna", today()] == 2
        await asyncio.sleep(0.1)
        await book.catch_up()
    async with opened(tmp_path) as (book, _):
        assert book.usage["anna", today()] == 2


async def test_what_is_late_is_written_down_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A job that is accepted may have to catch up while the daemon does so on its own."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        with locked(tmp_path):
            await book.end(job, Done("a", 1.0))
        await asyncio.sleep(0.1)
        caplog.clear()
        await asyncio.gather(book.catch_up(), book.catch_up())
        assert told(job.session)[-1] == Done("a", 1.0)
    assert "could not be written down" not in caplog.text


async def test_nobody_waits_for_ever_for_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written down for half a minute is told all the same."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        with locked(tmp_path):
            await book.end(job, Done("a", 1.0))
            at(monkeypatch, TOLD_ANYWAY + 1)
            await book.catch_up()
            assert told(job.session)[-1] == Done("a", 1.0)


async def test_numbers_that_could_not_be_reserved_are_not_told(tmp_path: Path) -> None:
    """While the journal takes nothing, no number is told that the next daemon might give away again."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        with locked(tmp_path):
            for step in range(3000):
                book.tell(job, Progress("a", "denoising", step / 3000))
            await asyncio.sleep(0.3)
            await book.catch_up()
            before = len(told(job.session))
            assert before < 3000
        for _ in range(100):
            if len(told(job.session)) == 3002:
                break
            await book.catch_up()
            await asyncio.sleep(0.02)
        assert len(told(job.session)) == 3002


async def test_attempts_that_were_not_written_down_are_told_as_one(tmp_path: Path) -> None:
    """The next daemon, which does not know of them, tells no lower attempt than its client has heard."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        with locked(tmp_path):
            await book.start(job)
            await book.start(job)
            assert told(job.session) == [Accepted("a", 0), Started("a", 1), Started("a", 1)]


async def test_what_is_forgotten_while_the_journal_is_locked_is_not_done_again(tmp_path: Path) -> None:
    """A job that ended and was acknowledged in that time is gone from the journal once that can be written."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        with locked(tmp_path):
            await book.end(job, Done("a", 1.0))
            book.forget(job)
            await asyncio.sleep(0.3)
        await asyncio.sleep(0.1)
    async with opened(tmp_path) as (book, waiting):
        [session] = book.sessions.values()
        assert (waiting, session.jobs) == ([], {})


async def test_what_is_forgotten_while_it_is_written_down_holds_up_no_other(tmp_path: Path) -> None:
    """The end of a job is on its way to the journal when nobody needs it any more; the next one's end follows."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        first, second = [await accepted(book, session, name) for name in "ab"]
        with locked(tmp_path):
            for job in (first, second):
                await book.end(job, Done(job.id, 1.0))
        await asyncio.sleep(0.1)
        catching_up = asyncio.create_task(book.catch_up())
        await asyncio.sleep(0)
        book.forget(first)
        await catching_up
        assert told(session) == [Accepted("b", 0), Done("b", 1.0)]
    async with opened(tmp_path) as (book, waiting):
        [session] = book.sessions.values()
        assert waiting == []
        assert told(session) == [Accepted("b", 0), Done("b", 1.0)]


async def test_an_id_is_free_again_once_its_job_is_forgotten(tmp_path: Path) -> None:
    """A job is refused while the journal still holds an earlier one of its id, and is a new one afterwards."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.end(job, Done("a", 1.0))
        with locked(tmp_path):
            book.forget(job)
            await asyncio.sleep(0.3)
            with pytest.raises(JournalError, match="earlier job of this id"):
                await accepted(book, job.session)
            assert job.session.jobs == {}
        await asyncio.sleep(0.1)
        await accepted(book, job.session)
    async with opened(tmp_path) as (book, waiting):
        assert [job.id for job in waiting] == ["a"]


async def test_an_id_whose_former_job_is_not_forgotten_yet_is_refused(tmp_path: Path) -> None:
    """A daemon that stops cannot forget a job any more, and takes no other one for it."""
    journal = journal_in(tmp_path)
    async with opened(tmp_path, journal=journal) as (book, _):
        session = book.new_session("anna", "test")
        job = await accepted(book, session)
        await book.end(job, Done("a", 1.0))
        # Closed, it refuses without a wait; what follows a wait that fails is not counted by Python 3.11's tracing.
        await journal.close()
        book.forget(job)
        with pytest.raises(JournalError, match="earlier job of this id"):
            await accepted(book, session)
        assert session.jobs == {}
    async with opened(tmp_path) as (book, waiting):
        again = book.find(session.id, "anna")
        assert again is not None
        assert waiting == []
        assert told(again) == [Accepted("a", 0), Done("a", 1.0)]


# A journal that began anew, or is another's.


async def test_what_cannot_be_written_down_is_still_told(tmp_path: Path) -> None:
    """A picture that is finished while the journal is broken reaches whoever is there to take it."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        with beside(tmp_path / "journal.sqlite") as other:
            other.execute("DELETE FROM jobs")
        result = await painted(book, job)
        await book.end(job, Done("a", 1.0))
        assert told(job.session)[1:] == [result, Done("a", 1.0)]


async def test_a_journal_that_begins_anew_takes_new_jobs(tmp_path: Path) -> None:
    """Where the journal lost a session, its next job is written down with the session once more."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await book.end(await accepted(book, session), Done("a", 1.0))
        with beside(tmp_path / "journal.sqlite") as other:
            other.execute("PRAGMA foreign_keys = ON")
            other.execute("DELETE FROM sessions")
        await accepted(book, session, "b")
    async with opened(tmp_path) as (_, [job]):
        assert job.id == "b"


async def test_a_job_that_the_journal_lost_holds_up_no_other(tmp_path: Path) -> None:
    """Where the journal began anew, what is late of an earlier job is given up, and the rest is written down."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        lost, kept = [await accepted(book, session, name) for name in "ab"]
        with locked(tmp_path) as other:
            other.execute("DELETE FROM events WHERE job = 'a'")
            other.execute("DELETE FROM jobs WHERE job = 'a'")
            for job in (lost, kept):
                await book.end(job, Done(job.id, 1.0))
            other.execute("COMMIT")
            other.execute("BEGIN")
        await asyncio.sleep(0.1)
    async with opened(tmp_path) as (book, waiting):
        [session] = book.sessions.values()
        assert waiting == []
        assert told(session) == [Accepted("b", 0), Done("b", 1.0)]


async def test_a_session_that_the_journal_lost_goes_on_with_new_numbers(tmp_path: Path) -> None:
    """Where the journal began anew, a running job is told on: its session is opened there once more."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        with beside(tmp_path / "journal.sqlite") as other:
            other.execute("PRAGMA foreign_keys = ON")
            other.execute("DELETE FROM sessions")
        for step in range(3000):
            book.tell(job, Progress("a", "denoising", step / 3000))
            if step % 100 == 0:
                await asyncio.sleep(0.01)
        for _ in range(100):
            if len(told(job.session)) == 3001:
                break
            await book.catch_up()
            await asyncio.sleep(0.02)
        assert len(told(job.session)) == 3001


async def test_a_session_that_the_journal_lost_waits_for_room_in_it(tmp_path: Path) -> None:
    """Where the journal began anew and is full, no number is told before the session is opened there once more."""
    async with opened(tmp_path, journal=journal_in(tmp_path, max_bytes=1 << 20)) as (book, _):
        job = await accepted(book, book.new_session("anna", "test" * 5000))
        with beside(tmp_path / "journal.sqlite") as other:
            other.execute("PRAGMA foreign_keys = ON")
            other.execute("DELETE FROM sessions")
            other.execute("CREATE TABLE ballast (bytes)")
            other.execute("INSERT INTO ballast VALUES (zeroblob(2000000))")
            for step in range(2000):
                book.tell(job, Progress("a", "denoising", step / 2000))
            await asyncio.sleep(0.1)
            assert len(before := told(job.session)) < 2001
            await book.catch_up()
            await asyncio.sleep(0.1)
            assert told(job.session) == before
            other.execute("DELETE FROM ballast")
        for _ in range(100):
            if len(told(job.session)) == 2001:
                break
            await book.catch_up()
            await asyncio.sleep(0.02)
        assert len(told(job.session)) == 2001


async def test_a_number_that_the_journal_has_already_is_no_acceptance(tmp_path: Path) -> None:
    """A journal that contradicts the daemon refuses the job with a typed error, and nothing of it is left."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await accepted(book, session, "a")
        with beside(tmp_path / "journal.sqlite") as other:
            other.execute("INSERT INTO events (session, seq, job, message) VALUES (?, 2, 'a', x'00')", (session.id,))
        with pytest.raises(JournalError, match="contradicts"):
            await accepted(book, session, "b")
        assert list(session.jobs) == ["a"]
