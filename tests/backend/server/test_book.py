"""The book over a real journal and real tiles: whose jobs are, how long they are kept, and what they cost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from underpaint_backend.server.book import GRACE, MAX_IDLE, today
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import Cancelled, Done, Failed, Progress

from tests.backend.server.books import accepted, at, nothing_is_kept, opened, painted, told


async def test_a_session_is_found_by_its_owner_alone(tmp_path: Path) -> None:
    """Somebody else's session and one that never was are the same."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        assert book.find(session.id, "anna") is session
        assert book.find(session.id, "bert") is None
        assert book.find("f" * 32, "anna") is None


async def test_a_session_without_history_ends_with_its_connection(tmp_path: Path) -> None:
    """Whoever only looked in leaves nothing behind."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        book.leave(session)
        assert book.sessions == {}


async def test_a_used_session_is_there_after_its_connection(tmp_path: Path) -> None:
    """Whoever had jobs in it may come back to it."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await accepted(book, session)
        book.leave(session)
        assert book.find(session.id, "anna") is session


async def test_a_session_that_was_never_used_is_forgotten_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever left it there: an hour after its connection went, nobody can come back to it."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        session.left_at = time.monotonic()
        at(monkeypatch, GRACE + 60)
        book.expire()
        assert book.sessions == {}


async def test_whoever_comes_and_goes_is_remembered_up_to_a_bound(tmp_path: Path) -> None:
    """Of sessions in which nothing waits, those of which somebody left last are kept, of each token so many."""
    async with opened(tmp_path) as (book, _):
        sessions = [book.new_session("anna", "test") for _ in range(MAX_IDLE + 10)]
        for number, session in enumerate(sessions):
            session.left_at = time.monotonic() + number
        other = book.new_session("bert", "test")
        other.left_at = time.monotonic()
        book.expire()
        assert list(book.sessions.values()) == [*sessions[10:], other]


async def test_results_that_nobody_comes_for_are_forgotten_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time for which they are kept, whoever listens; then their session goes as well."""
    async with opened(tmp_path, keep=2 * GRACE) as (book, _):
        session = book.new_session("anna", "test")
        job = await accepted(book, session)
        await book.end(job, Done("a", 1.0))
        at(monkeypatch, 2 * GRACE - 60)
        book.expire()
        assert session.jobs
        at(monkeypatch, 2 * GRACE + 60)
        book.expire()
        assert not session.jobs
        at(monkeypatch, 4 * GRACE)
        book.expire()
        assert book.sessions == {}
    async with opened(tmp_path) as (book, _):
        assert book.sessions == {}


async def test_what_one_owner_has_waiting_is_told_apart(tmp_path: Path) -> None:
    """Limits are those of a token: jobs of all its sessions count, ended ones and those of others do not."""
    async with opened(tmp_path) as (book, _):
        first, second, other = (book.new_session(name, "test") for name in ("anna", "anna", "bert"))
        waiting = [await accepted(book, first), await accepted(book, second), await accepted(book, other)]
        await book.end(waiting[0], Done("a", 1.0))
        assert book.unended("anna") == [waiting[1]]


async def test_a_job_is_never_in_the_book_twice(tmp_path: Path) -> None:
    """Whoever accepts one that is there has not looked; the first one stays, with its pixels and its charge."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        job = await accepted(book, session, work=3)
        with pytest.raises(ValueError, match="already"):
            await accepted(book, session, work=3)
        assert session.jobs == {"a": job}
        assert book.usage["anna", today()] == 3
        await book.end(job, Cancelled("a"))
        assert await nothing_is_kept(book)


async def test_what_did_not_become_a_picture_is_not_charged(tmp_path: Path) -> None:
    """Work is charged when a job is accepted, and given back if it fails or is cancelled; a restart remembers it."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        for name, end in (("a", Done("a", 1.0)), ("b", Cancelled("b")), ("c", Failed("c", describe("internal")))):
            job = await accepted(book, session, name)
            assert book.usage["anna", today()] == (3 if name == "a" else 6)
            await book.end(job, end)
        assert book.usage["anna", today()] == 3
    async with opened(tmp_path) as (book, _):
        assert book.usage["anna", today()] == 3


async def test_a_job_that_is_cancelled_costs_what_was_done_of_it(tmp_path: Path) -> None:
    """Of its work, as much as it had told; of one that had told all, nothing is given back."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        for name, fraction, used in (("a", 0.25, 1), ("b", 1.0, 5)):
            job = await accepted(book, session, name, work=4)
            await book.start(job)
            book.tell(job, Progress(name, "denoising", fraction))
            await book.end(job, Cancelled(name))
            assert book.usage["anna", today()] == used


async def test_a_picture_that_was_finished_before_the_worker_died_counts_once(tmp_path: Path) -> None:
    """The second attempt paints the same picture again, and the client is told of it once."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        first = await painted(book, job)
        await book.start(job)
        await book.result(job, first)
        await book.end(job, Done("a", 1.0))
        assert [type(message).__name__ for message in told(job.session)].count("Result") == 1
        assert not await nothing_is_kept(book)
        book.forget(job)
        assert await nothing_is_kept(book)
