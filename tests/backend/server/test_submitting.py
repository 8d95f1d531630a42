"""What one connection asks for while another does, or while something slow is on its way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from underpaint_backend.server.access.guests import Guest, changing
from underpaint_backend.server.access.handshake import Gate
from underpaint_backend.server.access.owners import Allowance
from underpaint_backend.server.access.tokens import Tokens, digest_of, guests_beside, make_token
from underpaint_backend.server.daemon import Daemon, Options
from underpaint_backend.server.tiles import TileStore
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    Accepted,
    Cancel,
    Done,
    Error,
    Have,
    Hello,
    Missing,
    Model,
    Resume,
    Resumed,
    Started,
    Submit,
    Tile,
    Welcome,
    vocabulary,
)
from underpaint_protocol.tiles import name_of
from websockets.asyncio.client import ClientConnection

from tests.backend.server.books import MASK_TILES, REQUEST, TILES, accepted, flood, painted
from tests.backend.server.calling import ask, opened_at
from tests.backend.server.scripted_host import ScriptedHost
from tests.backend.server.test_pulls import HERE

PAINT = replace(REQUEST, model=HERE.id)
AMPLE = Allowance()
ROOM = 16 << 20
"""Bytes of the store."""


class Painter(ScriptedHost):
    """A host with one model, which is never done."""

    def models(self) -> tuple[Model, ...]:
        return (HERE,)


@dataclass
class Line:
    """Where those who look at tiles are held until all may go on."""

    expected: int = 0
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_by(self) -> None:
        """Wait, if one of the first so many."""
        with self._lock:
            held = self.expected > 0
            self.expected -= held
        if held:
            self.arrived.release()
            assert self.go.wait(timeout=20)

    async def is_full(self, many: int) -> None:
        """Wait until so many wait."""
        for _ in range(many):
            assert await asyncio.to_thread(self.arrived.acquire, timeout=20)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Threads that look how large tiles are wait in it."""
    line, size_of = Line(), TileStore.size_of

    def late(store: TileStore, name: bytes) -> int | None:
        line.pass_by()
        return size_of(store, name)

    monkeypatch.setattr(TileStore, "size_of", late)
    yield line
    line.go.set()


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Writes to the disk wait while it is not set."""
    gate, put = threading.Event(), TileStore.put
    gate.set()

    def late(store: TileStore, name: bytes, data: bytes) -> None:
        assert gate.wait(timeout=20)
        put(store, name, data)

    monkeypatch.setattr(TileStore, "put", late)
    yield gate
    gate.set()


@dataclass
class House:
    """A daemon that listens, its host, and the token of a guest."""

    url: str
    token: str
    host: Painter
    daemon: Daemon

    @asynccontextmanager
    async def greeted(self, token: str | None = None) -> AsyncIterator[tuple[ClientConnection, Welcome]]:
        """A connection that said hello, the guest's if no other token is named, and what it was answered."""
        async with await opened_at(self.url, token or self.token) as socket:
            welcome = await ask(socket, Hello("test"))
            assert isinstance(welcome, Welcome)
            yield socket, welcome


@asynccontextmanager
async def listening(home: Path, allowance: Allowance = AMPLE, room: int = ROOM) -> AsyncIterator[House]:
    """A daemon with a guest, which has the pixels of the request."""
    tokens, host, guest = Tokens(home / "token"), Painter(1), make_token()
    with changing(guests_beside(home / "token")) as guests:
        guests["guest"] = Guest(digest_of(guest), allowance)
    daemon = Daemon(host, Options(Gate(tokens), port=0, home=home, keep_bytes=room, drain_seconds=0.1))
    async with daemon.listening() as server:
        house = House(daemon.url(server), guest, host, daemon)
        async with house.greeted((home / "token").read_text().strip()) as (socket, _):
            await send(socket, {**TILES, **MASK_TILES})
            assert await ask(socket, Have(1, tuple(TILES))) == Missing((), 1)
        yield house


async def send(socket: ClientConnection, tiles: Mapping[bytes, bytes]) -> None:
    """Send tiles, raw."""
    for name, data in tiles.items():
        await socket.send(vocabulary.encode(Tile(name, len(data), data)))


async def answer_to(socket: ClientConnection, job: str) -> Record:
    """How a submit was answered."""
    async with asyncio.timeout(20):
        while True:
            message = vocabulary.decode(await socket.recv(decode=False))
            if isinstance(message, (Accepted, Missing, Error)) and message.job == job:
                return message


async def heard_within(socket: ClientConnection, seconds: float) -> list[Record]:
    """All that is said meanwhile."""
    heard = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                heard.append(vocabulary.decode(await socket.recv(decode=False)))
    return heard


async def test_a_job_that_moves_to_another_connection_while_it_is_looked_at_is_one(tmp_path: Path, line: Line) -> None:
    """It is accepted, run and charged once, and what held its pixels lets go of them once."""
    async with listening(tmp_path) as house, house.greeted() as (older, welcome), house.greeted() as (newer, _):
        line.expected = 1
        submit = vocabulary.encode(Submit("a", PAINT))
        await older.send(submit)
        await line.is_full(1)
        assert await ask(newer, Resume(welcome.session, 0)) == Resumed(welcome.session, ())
        await newer.send(submit)
        assert isinstance(await answer_to(newer, "a"), Accepted)
        line.go.set()
        assert [type(message) for message in await heard_within(newer, 0.5)] == [Started]
        [session] = [session for session in house.daemon._book.sessions.values() if session.jobs]
        assert house.daemon._book.usage.total() == session.jobs["a"].work
        assert house.daemon._queue.place_of(session.jobs["a"]) == 1  # it runs, and nothing waits


@pytest.mark.parametrize(
    ("allowance", "code"),
    [
        (Allowance(jobs=1), "too_many_jobs"),
        (Allowance(tile_bytes=2000), "too_many_jobs"),
        (Allowance(work_per_day=1), "allowance_used"),
    ],
    ids=["jobs", "bytes", "work"],
)
async def test_what_is_submitted_at_the_same_moment_counts_together(
    tmp_path: Path, line: Line, allowance: Allowance, code: str
) -> None:
    """A token has one allowance, over however many connections it is asked for."""
    async with listening(tmp_path, allowance) as house, house.greeted() as (one, _), house.greeted() as (other, _):
        line.expected = 2
        await one.send(vocabulary.encode(Submit("a", PAINT)))
        await other.send(vocabulary.encode(Submit("b", PAINT)))
        await line.is_full(2)
        line.go.set()
        answers = [await answer_to(one, "a"), await answer_to(other, "b")]
        refused = [answer.error.code for answer in answers if isinstance(answer, Error)]
        assert refused == [code]


async def test_pixels_that_go_while_they_are_looked_at_are_asked_for(tmp_path: Path, line: Line) -> None:
    """The client hears of it, and sends them again."""
    async with listening(tmp_path) as house, house.greeted() as (socket, _):
        line.expected = 1
        await socket.send(vocabulary.encode(Submit("a", PAINT)))
        await line.is_full(1)
        await flood(house.daemon._book, ROOM)
        line.go.set()
        answer = vocabulary.decode(await asyncio.wait_for(socket.recv(decode=False), 20))
        assert isinstance(answer, Missing)
        assert (answer.job, set(answer.tiles)) == ("a", {*TILES, *MASK_TILES})


async def test_a_job_within_the_bounds_of_its_token_can_be_sent(tmp_path: Path) -> None:
    """Twelve tiles of 50 KB on average are 600 KB, however much room each takes on the disk."""
    image, pixels = image_of(400, 300, 4, os.urandom(400 * 300 * 4), x=200, y=100)
    mask, shape = image_of(400, 300, 1, os.urandom(400 * 300), x=200, y=100)
    large = replace(PAINT, width=400, height=300, image=image, mask=mask)
    async with listening(tmp_path, Allowance(tile_bytes=1 << 20)) as house, house.greeted() as (socket, _):
        await send(socket, {**pixels, **shape})
        await socket.send(vocabulary.encode(Submit("a", large)))
        assert await answer_to(socket, "a") == Accepted("a", 0, seq=1)


async def test_a_request_that_is_refused_for_want_of_room_costs_nobody_his_pictures(tmp_path: Path) -> None:
    """One token does not get all the room, whatever waits in it; the next one gets what he needs of it."""
    large = replace(PAINT, batch=8)  # ten slots of 28, of which two are shared
    async with listening(tmp_path, room=7 << 20) as house, house.greeted() as (guest, _):
        book = house.daemon._book
        away = book.new_session("anna", "test")
        for number in range(11):
            job = await accepted(book, away, str(number))
            await painted(book, job, number + 1)
            await book.end(job, Done(job.id, 1.0))
        await guest.send(vocabulary.encode(Submit("first", large)))
        assert isinstance(await answer_to(guest, "first"), Accepted)
        await guest.send(vocabulary.encode(Submit("second", large)))
        refused = await answer_to(guest, "second")
        assert isinstance(refused, Error)
        assert (refused.error.code, refused.error.retryable) == ("storage_full", True)
        assert len(away.jobs) == 11
        async with house.greeted((tmp_path / "token").read_text().strip()) as (other, _):
            await other.send(vocabulary.encode(Submit("third", large)))
            assert isinstance(await answer_to(other, "third"), Accepted)
        assert len(away.jobs) == 11  # until it is painted


async def test_pixels_that_are_asked_for_get_their_room(tmp_path: Path) -> None:
    """Results that nobody came for go before the pixels come."""
    async with listening(tmp_path, room=7 << 20) as house, house.greeted() as (socket, _):
        book = house.daemon._book
        away = book.new_session("anna", "test")
        job = await accepted(book, away)
        await painted(book, job)
        await book.end(job, Done(job.id, 1.0))
        image, pixels = image_of(400, 300, 4, os.urandom(400 * 300 * 4))
        mask, shape = image_of(400, 300, 1, os.urandom(400 * 300))
        request = replace(PAINT, width=400, height=300, image=image, mask=mask, batch=3)  # which takes 20 slots of 28
        await socket.send(vocabulary.encode(Submit("a", request)))
        missing = await answer_to(socket, "a")
        assert isinstance(missing, Missing)
        assert set(away.jobs) == {"a"}
        more = replace(request, batch=5)
        await socket.send(vocabulary.encode(Submit("b", more)))
        assert isinstance(await answer_to(socket, "b"), Missing)
        assert away.jobs == {}
        await send(socket, {**pixels, **shape})
        await socket.send(vocabulary.encode(Submit("b", more)))
        assert isinstance(await answer_to(socket, "b"), Accepted)


async def test_a_request_that_the_store_cannot_hold_is_refused(tmp_path: Path) -> None:
    """Nobody can wait for room for it."""
    image, _ = image_of(400, 300, 4, bytes(400 * 300 * 4))
    mask, _ = image_of(400, 300, 1, bytes(400 * 300))
    async with listening(tmp_path, room=7 << 20) as house, house.greeted() as (socket, _):
        huge = replace(PAINT, width=400, height=300, image=image, mask=mask, batch=8)
        await socket.send(vocabulary.encode(Submit("a", huge)))
        refused = await answer_to(socket, "a")
        assert isinstance(refused, Error)
        assert refused.error.code == "too_many_pixels"
        assert "has no room in what the daemon keeps" in refused.error.message


async def test_what_no_job_needs_is_bounded_over_all_connections(tmp_path: Path) -> None:
    """The error says when more may come, and that others are not to blame; a job makes room for its own tiles."""
    noise = [os.urandom(1 << 18) for _ in range(8)]
    noise[-1] = noise[-1][: (1 << 18) - sum(map(len, MASK_TILES.values()))]
    async with listening(tmp_path, Allowance(tile_bytes=1 << 20)) as house, house.greeted() as (one, _):
        await send(one, {**MASK_TILES, **{name_of(data): data for data in noise}})
        assert await ask(one, Have(1, ())) == Missing((), 1)
        async with house.greeted() as (other, _):
            refused = await ask(other, Tile(name_of(b"more"), 4, b"more"))
            assert isinstance(refused, Error)
            assert (refused.error.code, refused.job) == ("too_many_uploads", None)
            assert re.search(r"in [1-6]?\d s", refused.error.hint)
            await other.send(vocabulary.encode(Submit("a", PAINT)))
            assert isinstance(await answer_to(other, "a"), Accepted)
            await send(other, {name_of(b"more"): b"more"})
            other_answers = await heard_within(other, 0.3)
            assert not [message for message in other_answers if isinstance(message, Error)]
            await send(other, {name_of(noise[0]): noise[0]})
            other_answers = await heard_within(other, 0.3)
            assert [message.error.code for message in other_answers if isinstance(message, Error)] == [
                "too_many_uploads"
            ]


async def test_a_cancel_does_not_wait_for_tiles(tmp_path: Path, slow_disk: threading.Event) -> None:
    """Control goes ahead of bulk: what came before on the same connection may take as long as it likes."""
    async with listening(tmp_path) as house, house.greeted() as (socket, _):
        slow_disk.clear()
        await socket.send(vocabulary.encode(Submit("a", PAINT)))
        assert isinstance(await answer_to(socket, "a"), Accepted)
        while not house.host.runs:
            await asyncio.sleep(0.01)
        await send(socket, {name_of(data): data for data in (b"one", b"two")})
        await socket.send(vocabulary.encode(Cancel("a")))
        async with asyncio.timeout(20):
            while not any(run.cancelled for run in house.host.runs.values()):
                await asyncio.sleep(0.01)
        await socket.send(vocabulary.encode(Have(1, (name_of(b"one"),))))
        meanwhile = await heard_within(socket, 0.2)
        assert not [message for message in meanwhile if isinstance(message, Missing)]  # which does wait
        slow_disk.set()
        assert vocabulary.decode(await socket.recv(decode=False)) == Missing((), 1)


async def test_what_comes_in_one_piece_leaves_others_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each frame whoever else has something to do does it, however many frames wait."""
    answered, missing = 0, TileStore.missing

    def counted(store: TileStore, names: Iterable[bytes]) -> list[bytes]:
        nonlocal answered
        answered += 1
        return missing(store, names)

    async with listening(tmp_path) as house, house.greeted() as (socket, _):
        monkeypatch.setattr(TileStore, "missing", counted)
        for query in range(100):
            socket.protocol.send_binary(vocabulary.encode(Have(query, ())))
        socket.transport.write(b"".join(socket.protocol.data_to_send()))
        turns = [0]
        async with asyncio.timeout(20):
            while answered < 100:
                await asyncio.sleep(0)
                turns.append(answered)
        assert max(later - earlier for earlier, later in itertools.pairwise(turns)) <= 1
