"""Room for pixels, whatever happens in whatever order: who was accepted gets what he was promised."""

from __future__ import annotations

import secrets
from collections import Counter
from pathlib import Path
from random import Random

from underpaint_backend.server.book import Book
from underpaint_backend.server.sessions import Job
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Cancelled, Done, Image, Request, Result, Submit, Tile

from tests.backend.server.books import SLOT, opened

SLOTS = 30
SIDES = (8, 16)
"""Of pictures, which take one slot or four."""


def picture(side: int, shade: int) -> tuple[Image, dict[bytes, bytes]]:
    """Of one colour, and its tiles."""
    return image_of(side, side, 4, bytes([shade]) * side * side * 4)


class Life:
    """Clients of three tokens that do this and that with a small store; some pictures are the same."""

    def __init__(self, book: Book, chance: Random, waiting: list[Job]) -> None:
        self.book, self.chance = book, chance
        new = [book.new_session(owner, "test") for owner in ("anna", "anna", "bert", "cleo")]
        self.sessions = [session for session in book.sessions.values() if session.jobs] or new
        self.to_come = {job: job.submit.request.batch - len(job.results) for job in waiting}
        """Pictures that are yet to be painted of each job."""
        self.happened: Counter[str] = Counter()

    def request(self) -> tuple[Request, dict[bytes, bytes]]:
        """What to paint from, or nothing to paint from, and its tiles."""
        side, batch = self.chance.choice(SIDES), self.chance.randint(1, 6)
        if self.chance.random() < 0.4:
            return Request("primer", "text_to_image", side, side, batch=batch), {}
        image, tiles = picture(side, self.chance.randrange(12))
        return Request("primer", "image_to_image", side, side, batch=batch, image=image), tiles

    @property
    def kept(self) -> set[Job]:
        """Jobs whose pictures wait."""
        return {job for session in self.sessions for job in session.jobs.values() if job.state.ended}

    async def submit(self) -> None:
        session, before = self.chance.choice(self.sessions), self.kept
        request, tiles = self.request()
        older = self.chance.choice([None, *session.unended()])
        found = await self.book.pixels.look(request.images)
        leaving = self.book.find_room(session.owner, found, request, older)
        if leaving is None:
            self.happened["refused"] += 1
            assert self.kept == before
            return
        if found.missing:
            self.book.make_way(leaving)
            self.happened["left for a request"] += len(leaving)
            for name, data in tiles.items():
                await self.book.pixels.store(Tile(name, len(data), data))
        before = self.kept
        job = await self.book.accept(session, Submit(secrets.token_hex(4), request), 0, 1)
        assert self.kept == before
        self.to_come[job] = request.batch
        self.happened["accepted"] += 1
        if older is not None:
            await self.end(older)

    async def paint(self) -> None:
        job, before = self.chance.choice([*self.to_come]), self.kept
        image, tiles = picture(job.submit.request.width, self.chance.randrange(200))
        for name, data in tiles.items():
            await self.book.store_result(job, Tile(name, len(data), data))
        await self.book.result(job, Result(job.id, len(job.results), 0, image))
        self.happened["painted"] += 1
        self.happened["left for a picture"] += len(before - self.kept)
        self.to_come[job] -= 1
        if not self.to_come[job]:
            await self.end(job)

    async def end(self, job: Job) -> None:
        del self.to_come[job]
        whole = len(job.results) == job.submit.request.batch
        await self.book.end(job, Done(job.id, 1.0) if whole else Cancelled(job.id))

    def acknowledge(self) -> None:
        if self.kept:
            self.book.forget(
                self.chance.choice([job for one in self.sessions for job in one.jobs.values() if job in self.kept])
            )

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            what = self.chance.choices(("submit", "paint", "end", "acknowledge"), (12, 10, 1, 1))[0]
            if what == "submit":
                await self.submit()
            elif what == "acknowledge":
                self.acknowledge()
            elif self.to_come:
                await (self.paint() if what == "paint" else self.end(self.chance.choice([*self.to_come])))


async def test_whoever_is_accepted_gets_his_room(tmp_path: Path) -> None:
    """Every picture of an accepted job finds its place, also after a restart.

    No job that is accepted or refused costs anybody a picture by that.
    """
    happened = Counter[str]()
    for seed in range(8):
        chance = Random(seed)
        for _ in range(2):
            async with opened(tmp_path / str(seed), room=SLOTS * SLOT) as (book, waiting):
                life = Life(book, chance, waiting)
                await life.live(120)
                happened += life.happened
    assert all(happened[what] for what in ("refused", "left for a request", "left for a picture", "painted"))
