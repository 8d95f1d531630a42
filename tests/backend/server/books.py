"""A book that a test opens over a real journal and real tiles; a restart is a second book over the same files."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from underpaint_backend.server import book as books
from underpaint_backend.server import late
from underpaint_backend.server.book import Book, Keep
from underpaint_backend.server.journal import Journal
from underpaint_backend.server.outbox import Outbox
from underpaint_backend.server.sessions import Job, Session
from underpaint_backend.server.tiles import StoreFull, TileStore
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Request, Result, Submit, Tile
from underpaint_protocol.tiles import name_of

from tests.backend.server.journals import beside

IMAGE, TILES = image_of(16, 16, 4, bytes(range(256)) * 4)
MASK, MASK_TILES = image_of(16, 16, 1, bytes(range(256)))
REQUEST = Request("primer", "inpaint", 16, 16, image=IMAGE, mask=MASK)
ROOM = 1 << 20
SLOT = 256
"""Bytes: a picture takes four slots of the store of tiles, and its mask one."""


def journal_in(home: Path, **options: Any) -> Journal:
    """The journal of the book in `home`, which soon has enough of waiting for a locked file."""
    return Journal(home / "journal.sqlite", reopen_after=0.05, busy_timeout=0.2, **options)


@asynccontextmanager
async def opened(
    home: Path,
    keep: float = 24 * 3600.0,
    room: int = ROOM,
    journal: Journal | None = None,
    bytes_each: int = Keep.bytes_each,
) -> AsyncIterator[tuple[Book, list[Job]]]:
    """A book over the files in `home`, and the jobs that are to go on."""
    book = Book(journal or journal_in(home), TileStore(home / "tiles", room, SLOT), Keep(keep, bytes_each))
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


async def flood(book: Book, room: int = ROOM) -> None:
    """Store other pixels that push out all that nobody needs of a store with so much room."""
    for _ in range(64):
        data = os.urandom(room // 64)
        with suppress(StoreFull):  # all that is here is needed
            await book.pixels.store(Tile(name_of(data), len(data), data))


async def nothing_is_kept(book: Book, room: int = ROOM) -> bool:
    """Whether a picture that takes the whole store has room in it: no job needs a tile."""
    side = math.isqrt(room // 4)
    whole, _ = image_of(side, side, 4, os.urandom(room))
    return book.pixels.shortage((await book.pixels.look([whole])).needs, 0) <= 0


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


def at(monkeypatch: pytest.MonkeyPatch, later: float) -> None:
    """Let the monotonic clock show what it will show `later` seconds from now."""
    moment = time.monotonic() + later

    class Clock:
        monotonic = staticmethod(lambda: moment)
        time = staticmethod(time.time)

    for module in (books, late):
        monkeypatch.setattr(module, "time", Clock)


@contextmanager
def locked(home: Path) -> Iterator[sqlite3.Connection]:
    """Another process has the journal to itself."""
    with beside(home / "journal.sqlite") as other:
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield other
        finally:
            other.execute("ROLLBACK")


def lose_pixels(home: Path) -> None:
    """The disk loses all tiles of the book in `home`."""
    os.truncate(home / "tiles" / "pixels", 0)
