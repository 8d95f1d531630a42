"""The pixels of jobs in the book: tiles that are damaged, missing or lost by the disk, and room for them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from underpaint_backend.server.book import Book
from underpaint_backend.server.journal import JournalError
from underpaint_backend.server.outbox import Outbox
from underpaint_backend.server.pixels import Found, MissingTile
from underpaint_backend.server.sessions import Job, Session
from underpaint_backend.server.tiles import DiskFull, StoreFull, TileStore
from underpaint_protocol.encodings import encode
from underpaint_protocol.errors import describe
from underpaint_protocol.exceptions import TileError
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Cancelled, Done, Failed, Result, Submit, Tile
from underpaint_protocol.tiles import name_of

from tests.backend.server.books import (
    IMAGE,
    MASK,
    MASK_TILES,
    REQUEST,
    SLOT,
    TILES,
    accepted,
    flood,
    locked,
    lose_pixels,
    opened,
    painted,
    told,
)


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
    lose_pixels(tmp_path)
    for _ in range(2):
        async with opened(tmp_path) as (book, waiting):
            again = book.find(session.id, "anna")
            assert again is not None
            assert (waiting, again.jobs, told(again)) == ([], {}, [])


async def test_a_tile_that_the_disk_loses_is_noticed_when_its_job_starts(tmp_path: Path) -> None:
    """A job whose pixels go while it waits says so."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        lose_pixels(tmp_path)
        with pytest.raises(MissingTile):
            _ = [tile async for tile in book.pixels.of_request(job)]
        await book.end(job, Failed("a", describe("missing_pixels", detail="gone")))


async def test_a_result_that_the_disk_lost_is_not_there_to_fetch(tmp_path: Path) -> None:
    """The rest of the job is told as ever."""
    async with opened(tmp_path) as (book, _):
        job = await accepted(book, book.new_session("anna", "test"))
        result = await painted(book, job)
        await book.end(job, Done("a", 1.0))
    lose_pixels(tmp_path)
    async with opened(tmp_path) as (book, _):
        [session] = book.sessions.values()
        assert len(told(session)) == 3
        assert await book.pixels.packed(result.image.tiles[0], "raw") is None
        book.forget(session.jobs["a"])


async def test_pixels_know_their_places_and_their_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile that does not fill its cell, and a request that can never be there as a whole, are noticed beforehand."""
    async with opened(tmp_path, room=1500) as (book, _):
        for tile_name, data in TILES.items():
            await book.pixels.store(Tile(tile_name, len(data), data))
        other = replace(IMAGE, tiles=(bytes(16),))
        picture, mask = dict.fromkeys(IMAGE.tiles, 4), dict.fromkeys(MASK.tiles, 1)
        assert await book.pixels.look([IMAGE]) == Found([], fit=True, needs=picture)
        assert not (await book.pixels.look([replace(MASK, tiles=IMAGE.tiles)])).fit
        assert await book.pixels.look([IMAGE, MASK]) == Found([*MASK_TILES], fit=True, needs={**picture, **mask})
        assert book.pixels.shortage((await book.pixels.look([IMAGE, IMAGE])).needs, 1) == 0  # of five slots
        assert book.pixels.shortage((await book.pixels.look([IMAGE, other])).needs, 0) == 3
        assert not book.could_hold(await book.pixels.look([IMAGE, MASK]), REQUEST)  # whose picture takes four, too
        assert book.could_hold(await book.pixels.look([MASK]), REQUEST)


async def test_when_there_is_no_room_results_go_in_turn(tmp_path: Path) -> None:
    """Of whoever takes most, those go first whose client is away, the oldest first; where none is left, it is said."""
    async with opened(tmp_path, room=26 * SLOT) as (book, _):
        modest, away, here = (book.new_session(name, "test") for name in ("bert", "anna", "anna"))
        shades = iter(range(1, 100))
        for session, name in ((modest, "m"), (here, "a"), (away, "b"), (here, "c")):
            job = await accepted(book, session, name)
            await painted(book, job, next(shades))
            await book.end(job, Done(name, 1.0))
        here.outbox = Outbox()
        job = await accepted(book, here, "d")
        for expected in (["m", "a", "c"], ["m", "c"], ["m"], []):
            while sorted(left := [name for one in (modest, away, here) for name in one.jobs if name != "d"]) != sorted(
                expected
            ):
                assert len(left) >= len(expected)
                await painted(book, job, next(shades))
        full = asyncio.gather(*(painted(book, job, next(shades)) for _ in range(9)))
        with pytest.raises(StoreFull):
            await full


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
        result = await painted(book, job)
        assert refused
        await flood(book)
        assert book.pixels.missing(result.image.tiles) == []


async def done(book: Book, session: Session, *names: str, shade: int = 1) -> list[Job]:
    """Jobs that have ended, each with a picture of one colour, which is the first one's or the next."""
    jobs = []
    for name in names:
        job = await accepted(book, session, name)
        await painted(book, job, shade)
        await book.end(job, Done(name, 1.0))
        jobs.append(job)
    return jobs


async def test_a_request_gets_the_room_of_results_that_nobody_came_for(tmp_path: Path) -> None:
    """Another's pictures that wait stand in the way of nobody; as many go as have to, and none in vain."""
    async with opened(tmp_path, room=18 * SLOT) as (book, _):
        bert, anna = (book.new_session(name, "test") for name in ("bert", "anna"))
        for number in range(3):
            job = await accepted(book, bert, str(number))
            await painted(book, job, shade=number + 1)
            await book.end(job, Done(job.id, 1.0))
        found = await book.pixels.look(REQUEST.images)

        assert book.find_room("anna", found, replace(REQUEST, batch=4)) is None  # 21 slots
        assert book.find_room("anna", found, REQUEST) == [bert.jobs["0"]]
        job = await accepted(book, anna)
        assert set(bert.jobs) == {"0", "1", "2"}
        await painted(book, job, shade=9)
        assert set(bert.jobs) == {"1", "2"}


async def test_no_job_is_forgotten_before_its_end_is_told(tmp_path: Path) -> None:
    """Its client would wait for ever: the room is there once the journal has taken the end."""
    async with opened(tmp_path, room=18 * SLOT) as (book, _):
        bert = book.new_session("bert", "test")
        jobs = [await accepted(book, bert, str(number)) for number in range(3)]
        for shade, job in enumerate(jobs, start=1):
            await painted(book, job, shade)
        found = await book.pixels.look(REQUEST.images)
        with locked(tmp_path):
            for job in jobs:
                await book.end(job, Done(job.id, 1.0))
            assert book.find_room("anna", found, REQUEST) is None

        async with asyncio.timeout(10):
            while sum(isinstance(message, Done) for message in told(bert)) < 3:
                await asyncio.sleep(0.02)
                await book.catch_up()
        assert book.find_room("anna", found, REQUEST) == [jobs[0]]


async def test_a_picture_that_a_worker_brings_again_takes_its_room_once(tmp_path: Path) -> None:
    """Another worker died after it had brought it; what is yet to come has its room still."""
    async with opened(tmp_path) as (book, _):
        session = book.new_session("anna", "test")
        await accepted(book, session, "first")
        job = await book.accept(session, Submit("two", replace(REQUEST, batch=2)), 0, 0)
        assert job.slots_to_come == 8
        for _ in range(2):
            _, tiles = image_of(16, 16, 4, bytes(range(1, 5)) * 256)
            for name, data in tiles.items():
                await book.store_result(job, Tile(name, len(data), data))
        assert job.slots_to_come == 4


@contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    """As on a disk that is full."""
    import resource  # which only POSIX has

    before, heard = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)


@pytest.mark.skipif(os.name != "posix", reason="the limit is one of POSIX")
async def test_a_full_disk_costs_nobody_the_pictures_that_wait(tmp_path: Path) -> None:
    """To forget them would help nobody: it is other files that fill the disk."""
    async with opened(tmp_path, room=4 << 20) as (book, _):
        session = book.new_session("anna", "test")
        first = await accepted(book, session, "first")
        image, tiles = image_of(512, 512, 4, os.urandom(1 << 20))
        for name, data in tiles.items():
            await book.store_result(first, Tile(name, len(data), data))
        await book.result(first, Result("first", 0, 0, image))
        await book.end(first, Done("first", 1.0))
        second = await accepted(book, session, "second")

        with no_file_grows_beyond((tmp_path / "tiles" / "pixels").stat().st_size), pytest.raises(DiskFull):
            await painted(book, second)

        assert set(session.jobs) == {"first", "second"}
        await painted(book, second)


async def test_a_job_that_is_not_accepted_costs_nobody_his_pictures(tmp_path: Path) -> None:
    """Nor does one that is cancelled before it is painted: pictures go when others take their place."""
    async with opened(tmp_path, room=18 * SLOT) as (book, _):
        bert, anna = (book.new_session(name, "test") for name in ("bert", "anna"))
        for number in range(3):
            await done(book, bert, str(number), shade=number + 1)
        found = await book.pixels.look(REQUEST.images)
        assert book.find_room("anna", found, REQUEST)
        job = await accepted(book, anna)
        await book.end(job, Cancelled(job.id))
        with locked(tmp_path), pytest.raises(JournalError):
            await accepted(book, anna, "b")
        assert set(bert.jobs) == {"0", "1", "2"}


async def test_pictures_that_are_the_same_do_not_go_in_vain(tmp_path: Path) -> None:
    """A tile that somebody else has too, or that is needed all the same, gives nothing back."""
    async with opened(tmp_path, room=25 * SLOT) as (book, _):
        bert, anna = (book.new_session(name, "test") for name in ("bert", "anna"))
        same, shared = await done(book, bert, "same", "shared", shade=1)
        waiting = await accepted(book, anna, "waits")
        [needed] = await done(book, bert, "needed", shade=2)
        [alone] = await done(book, bert, "alone", shade=3)
        nothing, found = await book.pixels.look([]), await book.pixels.look([needed.results[0].image])
        painting = replace(REQUEST, image=None, mask=None)  # four slots for each picture; four are free
        assert book.find_room("new", found, replace(painting, batch=2)) == [same, shared]
        assert book.find_room("new", nothing, replace(painting, batch=3)) == [same, shared, needed]
        assert book.find_room("new", found, replace(painting, batch=3)) == [same, shared, alone]
        assert book.find_room("new", found, replace(painting, batch=4)) is None

        await painted(book, waiting, shade=1)
        assert book.find_room("new", found, replace(painting, batch=3)) == [alone]


async def test_accepted_jobs_have_room_for_their_pictures(tmp_path: Path) -> None:
    """Requests do not take what pictures will need that were asked for before, also after a restart."""
    async with opened(tmp_path, room=16 * SLOT) as (book, _):
        found = await book.pixels.look(REQUEST.images)
        jobs = []
        for owner in ("anna", "bert", "cleo"):
            if book.find_room(owner, found, REQUEST) is not None:
                jobs.append(await accepted(book, book.new_session(owner, "test")))
        assert len(jobs) == 2  # five slots of the pixels that both have, and four of each picture
        await painted(book, jobs[0])
    async with opened(tmp_path, room=16 * SLOT) as (book, waiting):
        assert book.find_room("cleo", found, REQUEST) is None
        for shade, job in enumerate(waiting):
            await painted(book, job, shade=shade + 1)
            await book.end(job, Done(job.id, 1.0))
        assert book.find_room("cleo", found, REQUEST) is not None


async def test_one_token_leaves_to_others_as_much_as_it_takes(tmp_path: Path) -> None:
    """However many jobs it may have: the next client paints at once. A single job may take all there is."""
    async with opened(tmp_path, room=35 * SLOT) as (book, _):
        guest, anna = (book.new_session(name, "test") for name in ("guest", "anna"))
        found = await book.pixels.look(REQUEST.images)
        names = iter("abcdefgh")
        while book.find_room("guest", found, REQUEST) is not None:
            await accepted(book, guest, next(names))
        assert len(guest.jobs) == 3  # five slots of the pixels that all have, and four of each picture
        assert book.find_room("anna", found, REQUEST) is not None
        first = await accepted(book, anna)
        assert book.find_room("anna", found, REQUEST) is None  # 13 slots, and 10 would be left
        await book.end(first, Cancelled(first.id))
        for job in list(guest.jobs.values()):
            await book.end(job, Cancelled(job.id))
        assert book.find_room("guest", found, replace(REQUEST, batch=7)) is not None  # 33 slots


async def test_pixels_that_two_tokens_need_are_there_once(tmp_path: Path) -> None:
    """What one of them leaves to others does not fall because the other one uses the same."""
    async with opened(tmp_path, room=31 * SLOT) as (book, _):
        anna, bert = (book.new_session(name, "test") for name in ("anna", "bert"))
        found = await book.pixels.look(REQUEST.images)
        for session, name in ((anna, "a"), (bert, "b")):
            await accepted(book, session, name)
        assert book.find_room("anna", found, REQUEST) is not None  # 13 slots, and 14 are left beside the picture of b
        assert book.find_room("anna", found, replace(REQUEST, batch=2)) is None


async def test_a_job_makes_room_for_the_one_that_supersedes_it(tmp_path: Path) -> None:
    """Live painting in a small store: the older one is never finished, so both need not have room."""
    async with opened(tmp_path, room=12 * SLOT) as (book, _):
        anna, _ = (book.new_session(name, "test") for name in ("anna", "bert"))
        found = await book.pixels.look(REQUEST.images)
        older = await accepted(book, anna, "older")
        assert book.find_room("anna", found, REQUEST) is None
        assert book.find_room("anna", found, REQUEST, older) == ()
        assert book.pixels.shares.of("anna") == 9
        await book.end(older, Cancelled("older"))
        assert book.find_room("anna", found, REQUEST, older) == ()


async def test_nobody_loses_results_to_who_takes_more(tmp_path: Path) -> None:
    """His own go before those of others, and if that does not help, his request is refused and nothing goes."""
    async with opened(tmp_path, room=44 * SLOT) as (book, _):
        found = await book.pixels.look(REQUEST.images)
        guest = book.new_session("guest", "test")
        modest = [book.new_session(f"anna {number}", "test") for number in range(6)]
        await accepted(book, guest, "waits")
        for shade, session in enumerate((*modest, guest), start=1):
            await done(book, session, "done", shade=shade)

        leaving = book.find_room("guest", found, replace(REQUEST, batch=2))  # 8 slots more; 7 are free
        assert leaving == [guest.jobs["done"]]
        book.make_way(leaving)

        # 11 are free, and 4 of each of them
        assert book.find_room("guest", found, replace(REQUEST, batch=3)) is None

        leaving = book.find_room("new", found, replace(REQUEST, batch=3))  # which takes nothing yet
        assert leaving is not None
        assert [job.session in modest for job in leaving] == [True]


async def test_room_is_found_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that waits is looked at once, however many have to go: the event loop has other things to do."""
    looks = 0
    over = Book._over

    def counted(book: Book) -> Iterator[Job]:
        nonlocal looks
        looks += 1
        return over(book)

    async with opened(tmp_path, room=90 * SLOT) as (book, _):
        session = book.new_session("anna", "test")
        for number in range(20):
            await done(book, session, str(number), shade=number + 1)
        monkeypatch.setattr(Book, "_over", counted)
        found = await book.pixels.look(REQUEST.images)
        leaving = book.find_room("anna", found, replace(REQUEST, batch=16))  # 69 slots; 10 are free
        assert leaving is not None
        assert (len(leaving), looks) == (15, 1)


async def test_what_ended_of_one_token_takes_a_part_of_the_journal(tmp_path: Path) -> None:
    """What has no picture goes first, the oldest first; what others have stays."""
    async with opened(tmp_path, bytes_each=3 * 400) as (book, _):
        anna, bert = (book.new_session(name, "test") for name in ("anna", "bert"))
        first = await accepted(book, anna, "painted")
        assert 300 < first.size < 400
        await painted(book, first)
        await book.end(first, Done(first.id, 1.0))
        for session, name in ((bert, "his"), (anna, "b"), (anna, "c"), (anna, "d")):
            job = await accepted(book, session, name)
            await book.end(job, Cancelled(name))
        assert set(anna.jobs) == {"painted", "c", "d"}
        assert set(bert.jobs) == {"his"}
    async with opened(tmp_path, bytes_each=1) as (book, _):
        [anna] = [session for session in book.sessions.values() if session.owner == "anna"]
        assert set(anna.jobs) == {"painted", "c", "d"}
        last = await accepted(book, anna, "e")
        await book.end(last, Cancelled("e"))
        assert set(anna.jobs) == {"e"}
