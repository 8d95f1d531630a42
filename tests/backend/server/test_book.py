"""The book of all jobs over a real journal and real tiles; a restart is a second book over the same files."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from underpaint_backend.server import book as books
from underpaint_backend.server.book import GRACE, Book, Keep, today
from underpaint_backend.server.journal import Journal, JournalError
from underpaint_backend.server.outbox import Outbox
from underpaint_backend.server.pixels import MissingTile
from underpaint_backend.server.sessions import Job, Session
from underpaint_backend.server.tiles import StoreFull, TileStore
from underpaint_protocol.encodings import encode
from underpaint_protocol.errors import describe
from underpaint_protocol.exceptions import TileError
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    Accepted,
    Cancelled,
    Done,
    Failed,
    Progress,
    Request,
    Result,
    Started,
    Submit,
    Tile,
)
from underpaint_protocol.tiles import name_of

IMAGE, TILES = image_of(16, 16, 4, bytes(range(256)) * 4)
MASK, MASK_TILES = image_of(16, 16, 1, bytes(range(256)))
REQUEST = Request("primer", "inpaint", 16, 16, image=IMAGE, mask=MASK)
ROOM = 1 << 20


@asynccontextmanager
async def opened(home: Path, keep: float = 24 * 3600.0, room: int = ROOM) -> AsyncIterator[tuple[Book, list[Job]]]:
    """A book over the files in `home`, and the jobs that are to go on."""
    journal = Journal(home / "journal.sqlite", reopen_after=0.05, busy_timeout=0.2)
    book = Book(journal, TileStore(home / "tiles", room), Keep(keep))
    waiting = await book.open()
    try:
        yield book, waiting
    finally:
        await book.close()


async def accepted(book: Book, session: Session, name: str = "a", work: int = 3) -> Job:
    """A job whose tiles came and that was written down."""
    for tile_name, data in {**TILES, **MASK_TILES}.items():
        await book.pixels.store(Tile(tile_name, len(data), data))
    return await book.accept(session, Submit(name, REQUEST), 0, work)


async def painted(book: Book, job: Job, shade: int = 1) -> Result:
    """A finished picture of one colour."""
    image, tiles = image_of(16, 16, 4, bytes([shade]) * 1024)
    for name, data in tiles.items():
        await book.store_result(job, Tile(name, len(data), data))
    result = Result(job.id, len(job.results), 0, image)
    await book.result(job, result)
    return result


def told(session: Session, after: int = 0) -> list[Record]:
    """What a client hears that has heard all up to `after`."""
    outbox, messages = Outbox(), []
    outbox.follow(session, after)
    while (message := outbox.take()) is not None:
        assert isinstance(message, Record)
        messages.append(replace(message, seq=0))  # type: ignore[call-arg]
    session.outbox = None
    return messages


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
        assert book.pixels.held_bytes == 0
    async with opened(tmp_path) as (book, _):
        again = book.find(name, "anna")
        assert again is not None
        assert told(again) == []


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


async def test_nothing_is_accepted_that_cannot_be_written_down(tmp_path: Path) -> None:
    """A journal that is not there is told as such, and the job is none; the pixels may be evicted again."""
    (tmp_path / "journal.sqlite").mkdir()
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        with pytest.raises(JournalError):
            await accepted(book, session)
        assert (session.jobs, told(session), book.pixels.held_bytes) == ({}, [], 0)
        assert book.usage["anna", today()] == 0


async def test_a_journal_that_begins_anew_takes_new_jobs(tmp_path: Path) -> None:
    """Where the journal lost a session, its next job is written down with the session once more."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await book.end(await accepted(book, session), Done("a", 1.0))
        with sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None) as other:
            other.execute("PRAGMA foreign_keys = ON")
            other.execute("DELETE FROM sessions")
        other.close()
        await accepted(book, session, "b")
    async with opened(tmp_path) as (_, [job]):
        assert job.id == "b"


async def test_a_job_of_another_version_costs_nobody_else_theirs(tmp_path: Path) -> None:
    """What cannot be understood is left out and forgotten; the rest goes on."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        for name in "ab":
            await accepted(book, session, name)
    with sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None) as journal:
        journal.execute("UPDATE jobs SET submit = x'c0' WHERE job = 'a'")
    journal.close()
    for _ in range(2):
        async with opened(tmp_path) as (_, waiting):
            assert [job.id for job in waiting] == ["b"]


async def test_what_cannot_be_written_down_is_still_told(tmp_path: Path) -> None:
    """A picture that is finished while the journal is broken reaches whoever is there to take it."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        with sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None) as other:
            other.execute("DELETE FROM jobs")
        other.close()
        result = await painted(book, job)
        await book.end(job, Done("a", 1.0))
        assert told(job.session)[1:] == [result, Done("a", 1.0)]


async def test_a_job_without_its_tiles_is_none(tmp_path: Path) -> None:
    """Tiles that went between the question and the submit are missed before anything is written down."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        with pytest.raises(MissingTile):
            await book.accept(session, Submit("a", REQUEST), 0, 0)
        assert session.jobs == {}


async def test_a_job_whose_pixels_the_disk_lost_is_none(tmp_path: Path) -> None:
    """After a restart its client is not told that the job is there, and submits it again with all that it has."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await accepted(book, session)
    for file in (tmp_path / "tiles").glob("*/*"):
        file.unlink()
    for _ in range(2):
        async with opened(tmp_path) as (book, waiting):
            again = book.find(session.id, "anna")
            assert again is not None
            assert (waiting, again.jobs, told(again)) == ([], {}, [])


async def test_a_tile_that_the_disk_loses_is_noticed_when_its_job_starts(tmp_path: Path) -> None:
    """A job whose pixels go while it waits says so."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        for file in (tmp_path / "tiles").glob("*/*"):
            file.unlink()
        with pytest.raises(MissingTile):
            _ = [tile async for tile in book.pixels.of_request(job)]
        await book.end(job, Failed("a", describe("missing_pixels", detail="gone")))


async def test_a_result_that_the_disk_lost_is_not_there_to_fetch(tmp_path: Path) -> None:
    """The rest of the job is told as ever."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        result = await painted(book, job)
        await book.end(job, Done("a", 1.0))
    for file in (tmp_path / "tiles").glob("*/*"):
        file.unlink()
    async with opened(tmp_path) as (book, _):
        [session] = book.sessions.values()
        assert len(told(session)) == 3
        assert await book.pixels.packed(result.image.tiles[0], "raw") is None
        book.forget(session.jobs["a"])


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
        book.forget(job)
        assert book.pixels.held_bytes == 0


async def test_a_damaged_tile_is_refused(tmp_path: Path) -> None:
    """Pixels that do not match their name are not kept, whatever their encoding."""
    async with opened(tmp_path) as (book, _):
        with pytest.raises(TileError):
            await book.pixels.store(Tile(b"0" * 16, 3, b"abc"))
        with pytest.raises(TileError):
            await book.pixels.store(Tile(name_of(b"abc"), 3, b"junk", "zlib"))


async def test_a_difference_is_kept_as_the_tile_that_it_means(tmp_path: Path) -> None:
    """With its base; without it nothing is kept, and whoever needs the tile asks for it again."""
    async with opened(tmp_path) as (book, _):
        base, changed = bytes(1000), bytes(500) + b"x" + bytes(499)
        tile = Tile(name_of(changed), 1000, encode("xor", changed, base), "xor", name_of(base))
        await book.pixels.store(tile)
        assert book.pixels.missing([tile.name]) == [tile.name]
        await book.pixels.store(Tile(name_of(base), 1000, base))
        await book.pixels.store(tile)
        packed = await book.pixels.packed(tile.name, "raw")
        assert packed is not None
        assert packed.data == changed


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


def at(monkeypatch: pytest.MonkeyPatch, later: float) -> None:
    """Let the monotonic clock show what it will show `later` seconds from now."""
    moment = time.monotonic() + later

    class Clock:
        monotonic = staticmethod(lambda: moment)
        time = staticmethod(time.time)

    monkeypatch.setattr(books, "time", Clock)


@pytest.mark.parametrize("jump", [-365 * 24 * 3600.0, 365 * 24 * 3600.0])
async def test_a_clock_that_jumps_loses_nothing(tmp_path: Path, jump: float) -> None:
    """Results that seem to be a year old, or of next year, wait at least an hour after a start."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.end(job, Done("a", 1.0))
    with sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None) as journal:
        journal.execute("UPDATE jobs SET ended = ended + ?, submitted = submitted + ?", (jump, jump))
        journal.execute("UPDATE sessions SET touched = touched + ?", (jump,))
    journal.close()
    async with opened(tmp_path) as (book, _):
        book.expire()
        [session] = book.sessions.values()
        assert told(session)[-1] == Done("a", 1.0)


async def test_when_there_is_no_room_results_go_in_turn(tmp_path: Path) -> None:
    """Of whoever holds most, those go first whose client is away, the oldest first; where none is left, it is said."""
    async with opened(tmp_path, room=6600) as (book, _):
        modest, away, here = (book.new_session(name, "test") for name in ("bert", "anna", "anna"))
        shades = iter(range(1, 100))
        for session, name in ((modest, "m"), (here, "a"), (away, "b"), (here, "c")):
            job = await accepted(book, session, name)
            await painted(book, job, next(shades))
            await book.end(job, Done(name, 1.0))
        here.outbox = Outbox()
        job = await accepted(book, here, "d")
        for expected in (["m", "a", "c"], ["m", "c"], ["c"], []):
            while sorted(left := [name for one in (modest, away, here) for name in one.jobs if name != "d"]) != sorted(
                expected
            ):
                assert len(left) >= len(expected)
                await painted(book, job, next(shades))
        full = asyncio.gather(*(painted(book, job, next(shades)) for _ in range(9)))
        with pytest.raises(StoreFull):
            await full


async def test_what_a_full_journal_does_not_take_is_written_down_later(tmp_path: Path) -> None:
    """A result and an end are told when they are written down, and are there after a restart."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        filler = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
        filler.execute("BEGIN EXCLUSIVE")
        result = await painted(book, job)
        await book.end(job, Done("a", 1.0))
        await book.catch_up()
        assert told(job.session)[-1] == Started("a", 1)
        filler.execute("ROLLBACK")
        filler.close()
        await asyncio.sleep(0.1)
        await book.catch_up()
        assert told(job.session)[-2:] == [result, Done("a", 1.0)]
    async with opened(tmp_path) as (book, waiting):
        [session] = book.sessions.values()
        assert waiting == []
        assert told(session)[-2:] == [result, Done("a", 1.0)]


async def test_whoever_comes_and_goes_is_remembered_up_to_a_bound(tmp_path: Path) -> None:
    """Of sessions in which nothing waits, those of which somebody left last are kept, of each token so many."""
    async with opened(tmp_path) as (book, _):
        sessions = [book.new_session("anna", "test") for _ in range(books.MAX_IDLE + 10)]
        for number, session in enumerate(sessions):
            session.left_at = time.monotonic() + number
        other = book.new_session("bert", "test")
        other.left_at = time.monotonic()
        book.expire()
        assert list(book.sessions.values()) == [*sessions[10:], other]


async def test_nobody_waits_for_ever_for_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written down for half a minute is told all the same."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        filler = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
        filler.execute("BEGIN EXCLUSIVE")
        await book.end(job, Done("a", 1.0))
        at(monkeypatch, books.TOLD_ANYWAY + 1)
        await book.catch_up()
        assert told(job.session)[-1] == Done("a", 1.0)
        filler.execute("ROLLBACK")
        filler.close()


async def test_numbers_that_could_not_be_reserved_are_not_told(tmp_path: Path) -> None:
    """While the journal takes nothing, no number is told that the next daemon might give away again."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.start(job)
        filler = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
        filler.execute("BEGIN EXCLUSIVE")
        for step in range(3000):
            book.tell(job, Progress("a", "denoising", step / 3000))
        before = len(told(job.session))
        assert before < 3000
        filler.execute("ROLLBACK")
        filler.close()
        for _ in range(20):
            await book.catch_up()
            await asyncio.sleep(0.05)
        assert len(told(job.session)) > before


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


async def test_events_that_make_no_sense_cost_nobody_the_start(tmp_path: Path) -> None:
    """A journal in which a job has no beginning is opened all the same."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        job = await accepted(book, session)
        await painted(book, job)
        await book.end(job, Done("a", 1.0))
        await accepted(book, session, "b")
    with sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None) as journal:
        journal.execute("UPDATE events SET message = x'c0' WHERE seq = 1")
    journal.close()
    async with opened(tmp_path) as (_, waiting):
        assert "b" in [job.id for job in waiting]


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


async def test_an_id_is_free_again_once_its_job_is_forgotten(tmp_path: Path) -> None:
    """A job is refused while the journal still holds an earlier one of its id, and is a new one afterwards."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        await book.end(job, Done("a", 1.0))
        with locked(tmp_path):
            book.forget(job)
            await asyncio.sleep(0.3)
            with pytest.raises(JournalError):
                await accepted(book, job.session)
            assert job.session.jobs == {}
        await asyncio.sleep(0.1)
        await accepted(book, job.session)
    async with opened(tmp_path) as (book, waiting):
        assert [job.id for job in waiting] == ["a"]


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


async def test_attempts_that_were_not_written_down_are_told_as_one(tmp_path: Path) -> None:
    """The next daemon, which does not know of them, tells no lower attempt than its client has heard."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        with locked(tmp_path):
            await book.start(job)
            await book.start(job)
            assert told(job.session) == [Accepted("a", 0), Started("a", 1), Started("a", 1)]


@contextmanager
def locked(home: Path) -> Iterator[sqlite3.Connection]:
    """Another process has the journal to itself."""
    other = sqlite3.connect(home / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield other
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_pixels_know_their_places_and_their_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile that does not fill its cell, and a request that can never be there as a whole, are noticed beforehand."""
    async with opened(tmp_path, room=1500) as (book, _):
        for tile_name, data in TILES.items():
            await book.pixels.store(Tile(tile_name, len(data), data))
        assert await book.pixels.fit([IMAGE])
        assert not await book.pixels.fit([replace(MASK, tiles=IMAGE.tiles)])
        assert book.pixels.has_room_for([IMAGE])
        assert not book.pixels.has_room_for([IMAGE, IMAGE])


async def test_a_tile_of_a_result_that_is_evicted_at_once_is_stored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between writing and holding it, another one may have taken its place."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        pin, refused = TileStore.pin, []

        def pin_late(store: TileStore, names: Sequence[bytes]) -> None:
            if not refused:
                refused.append(names)
                raise KeyError(names[0])
            pin(store, names)

        monkeypatch.setattr(TileStore, "pin", pin_late)
        await painted(book, job)
        assert refused
        assert book.pixels.held_bytes > 1024


async def test_a_used_session_is_there_after_its_connection(tmp_path: Path) -> None:
    """Whoever had jobs in it may come back to it."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await accepted(book, session)
        book.leave(session)
        assert book.find(session.id, "anna") is session


async def test_a_number_that_the_journal_has_already_is_no_acceptance(tmp_path: Path) -> None:
    """A journal that contradicts the daemon refuses the job with a typed error, and nothing of it is left."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await accepted(book, session, "a")
        with sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None) as other:
            other.execute("INSERT INTO events (session, seq, job, message) VALUES (?, 2, 'a', x'00')", (session.id,))
        other.close()
        with pytest.raises(JournalError, match="contradicts"):
            await accepted(book, session, "b")
        assert list(session.jobs) == ["a"]


async def test_a_session_that_the_journal_lost_goes_on_with_new_numbers(tmp_path: Path) -> None:
    """Where the journal began anew, a running job is told on: its session is opened there once more."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        with sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None) as other:
            other.execute("PRAGMA foreign_keys = ON")
            other.execute("DELETE FROM sessions")
        other.close()
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


async def test_an_id_whose_former_job_is_not_forgotten_yet_is_refused(tmp_path: Path) -> None:
    """A new job must not be taken for the old one that the journal still holds."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        job = await accepted(book, session)
        await book.end(job, Done("a", 1.0))
        filler = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
        filler.execute("BEGIN EXCLUSIVE")
        book.forget(job)
        await asyncio.sleep(0.5)
        with pytest.raises(JournalError):
            await accepted(book, session)
        filler.execute("ROLLBACK")
        filler.close()
