"""What of the book is there after a restart, which is a second book over the same files."""

from __future__ import annotations

from pathlib import Path

import pytest
from underpaint_backend.server.book import today
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import Accepted, Cancelled, Done, Failed, Progress, Started, Submit

from tests.backend.server.books import REQUEST, accepted, lose_pixels, nothing_is_kept, opened, painted, told
from tests.backend.server.journals import beside, downgraded


async def test_a_job_that_ran_when_the_daemon_died_is_to_be_done_again(tmp_path: Path) -> None:
    """It is in the next book with all its pixels, and with what was told of it that matters."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        book.tell(job, Progress("a", "denoising", 0.5))
    async with opened(tmp_path) as (book, [again]):
        assert (again.id, again.attempts, again.submit.request) == ("a", 1, REQUEST)
        assert [tile.name async for tile in book.pixels.of_request(again)] == list(again.tiles)
        assert told(again.session) == [Accepted("a", 0)]
        await book.start(again)
        assert told(again.session)[1:] == [Started("a", 2)]


async def test_numbers_are_never_used_twice(tmp_path: Path) -> None:
    """What was told after the last thing that was written down has lower numbers than what is told after a restart."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        for step in range(2000):
            book.tell(job, Progress("a", "denoising", step / 2000))
    async with opened(tmp_path) as (_, [again]):
        assert again.session.tell(again, Progress("a", "loading", 0.0)).seq > 2002


async def test_a_finished_job_waits_for_its_client_over_a_restart(tmp_path: Path) -> None:
    """Result and end are told again, and the pixels are there, until they are acknowledged."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        result = await painted(book, job)
        await book.end(job, Done("a", 1.0))
        name = job.session.id
    async with opened(tmp_path) as (book, waiting):
        assert waiting == []
        session = book.find(name, "anna")
        assert session is not None
        assert told(session) == [Accepted("a", 0), result, Done("a", 1.0)]
        tile = await book.pixels.packed(result.image.tiles[0], "zlib")
        assert tile is not None
        assert tile.size == 1024
        book.forget(session.jobs["a"])
        assert await nothing_is_kept(book)
    async with opened(tmp_path) as (book, _):
        again = book.find(name, "anna")
        assert again is not None
        assert told(again) == []


async def test_superseding_survives_a_restart(tmp_path: Path) -> None:
    """A job that was accepted in place of another one takes its place also if the daemon died in between."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await accepted(book, session, "old")
        await book.accept(session, Submit("new", REQUEST, supersedes="old"), 0, 0)
    async with opened(tmp_path) as (_, [old, new]):
        assert (old.cancelled, new.cancelled) == (True, False)


async def test_a_stopped_daemon_does_not_count_against_a_job(tmp_path: Path) -> None:
    """A job that is taken from its worker because the daemon is stopped has all its attempts left."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        book.unstart(job)
    async with opened(tmp_path) as (_, [again]):
        assert again.attempts == 0


@pytest.mark.parametrize("begun", [False, True], ids=["waiting", "running"])
async def test_what_is_cancelled_after_a_restart_is_refunded(tmp_path: Path, begun: bool) -> None:
    """A job of the last daemon costs its owner nothing that this one never did, also after one more restart."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await accepted(book, session, "kept", work=2)
        job = await accepted(book, session, "a", work=5)
        if begun:
            await book.start(job)
    async with opened(tmp_path) as (book, [_, again]):
        assert book.usage["anna", today()] == 7
        await book.end(again, Cancelled("a"))
        assert book.usage["anna", today()] == 2
    async with opened(tmp_path) as (book, _):
        assert book.usage["anna", today()] == 2


async def test_a_job_whose_pixels_are_lost_is_refunded(tmp_path: Path) -> None:
    """Its client is asked for it anew, and pays for it then."""
    async with opened(tmp_path) as (book, _):
        await accepted(book, book.new_session("anna", "test"), work=5)
    lose_pixels(tmp_path)
    for _ in range(2):
        async with opened(tmp_path) as (book, waiting):
            assert (waiting, book.usage["anna", today()]) == ([], 0)


async def test_a_job_that_an_earlier_version_accepted_goes_on(tmp_path: Path) -> None:
    """What it was charged is not known any more: it is done, and nothing is taken back if it fails."""
    async with opened(tmp_path) as (book, _):
        await accepted(book, book.new_session("anna", "test"), work=5)
    downgraded(tmp_path / "journal.sqlite")
    async with opened(tmp_path) as (book, [again]):
        assert told(again.session) == [Accepted("a", 0)]
        await book.start(again)
        await book.end(again, Failed("a", describe("internal")))
        assert book.usage["anna", today()] == 5


@pytest.mark.parametrize("jump", [-365 * 24 * 3600.0, 365 * 24 * 3600.0])
async def test_a_clock_that_jumps_loses_nothing(tmp_path: Path, jump: float) -> None:
    """Results that seem to be a year old, or of next year, wait at least an hour after a start."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.end(job, Done("a", 1.0))
    with beside(tmp_path / "journal.sqlite") as journal:
        journal.execute("UPDATE jobs SET ended = ended + ?", (jump,))
    async with opened(tmp_path) as (book, _):
        book.expire()
        [session] = book.sessions.values()
        assert told(session)[-1] == Done("a", 1.0)


async def test_a_job_of_another_version_costs_nobody_else_theirs(tmp_path: Path) -> None:
    """What cannot be understood is left out and forgotten; the rest goes on."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        for name in "ab":
            await accepted(book, session, name)
    with beside(tmp_path / "journal.sqlite") as journal:
        journal.execute("UPDATE jobs SET submit = x'c0' WHERE job = 'a'")
    for _ in range(2):
        async with opened(tmp_path) as (_, waiting):
            assert [job.id for job in waiting] == ["b"]


async def test_events_that_make_no_sense_cost_nobody_the_start(tmp_path: Path) -> None:
    """A journal in which a job has no beginning is opened all the same."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        job = await accepted(book, session)
        await painted(book, job)
        await book.end(job, Done("a", 1.0))
        await accepted(book, session, "b")
    with beside(tmp_path / "journal.sqlite") as journal:
        journal.execute("UPDATE events SET message = x'c0' WHERE seq = 1")
    async with opened(tmp_path) as (_, waiting):
        assert "b" in [job.id for job in waiting]
