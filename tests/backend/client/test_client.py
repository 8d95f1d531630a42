"""The asyncio client over real sockets that are cut, against the reference server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from underpaint_backend.client import Client, Refused, connect
from underpaint_backend.client.dialing import FIRST_DELAY, LAST_DELAY, pauses
from underpaint_protocol.client import Event, Picture
from underpaint_protocol.errors import describe
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    RESUMED_ELSEWHERE,
    REVOKED,
    TERMINAL,
    Accepted,
    Cancelled,
    Done,
    Error,
    Preview,
    Progress,
    Request,
    Started,
)

from tests.backend.client.serving import TOKEN, Served
from tests.protocol.reference import painted

PIXELS = bytes(range(96))
IMAGE, TILES = image_of(6, 4, 4, PIXELS, x=253, y=7)
INTO = Request(model="m", task="inpaint", width=6, height=4, image=IMAGE, batch=2)
REQUEST = Request(model="m", task="text_to_image", width=6, height=4, seed=3)


def connected(server: Served, **more: object) -> contextlib.AbstractAsyncContextManager[Client]:
    return connect(server.url, TOKEN, **more)  # type: ignore[arg-type]


async def events_of(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


async def settled(server: Served) -> None:
    """Wait until the server was told that all its jobs are safe."""
    while any(session.jobs for session in server.core.sessions.values()):
        await asyncio.sleep(0.005)


async def test_a_job_in_five_lines(server: Served) -> None:
    """Events come in order, pictures with their pixels, and the job is acknowledged after its end was taken."""
    async with connected(server) as client:
        events = await events_of(client.generate(INTO, TILES, job="mine"))
        assert client.open == ()
    pictures = [event for event in events if isinstance(event, Picture)]
    assert [picture.pixels for picture in pictures] == [painted(INTO, 0, PIXELS)] * 2
    assert isinstance(events[0], Accepted)
    assert isinstance(events[-1], Done)
    await settled(server)
    assert server.core.acknowledged == ["mine"]


async def test_an_end_is_not_acknowledged_before_it_was_consumed(server: Served) -> None:
    """While the program saves the picture, the daemon keeps it."""
    async with connected(server) as client:
        async for event in client.generate(REQUEST):
            if isinstance(event, TERMINAL):
                await asyncio.sleep(0.1)
                assert server.core.acknowledged == []
                assert len(client.open) == 1


async def test_generate_goes_on_through_lost_connections(server: Served) -> None:
    """Each event after which the connection is cut is followed by the next one, once."""
    async with connected(server) as client:
        events = []
        async for event in client.generate(INTO, TILES):
            events.append(event)
            if isinstance(event, (Accepted, Started, Progress)):
                server.cut()
    kinds = [type(event) for event in events if not isinstance(event, Preview)]
    assert kinds == [Accepted, Started, Progress, Picture, Progress, Picture, Progress, Done]


async def test_generate_goes_on_with_a_daemon_that_forgot(server: Served) -> None:
    """A daemon without memory gets the request and its pixels again."""
    async with connected(server) as client:
        events = []
        async for event in client.generate(INTO, TILES):
            events.append(event)
            if len(events) == 3:
                server.core.restart(memory=False)
        assert [event.index for event in events if isinstance(event, Picture)] == [0, 1]
        assert isinstance(events[-1], Done)


async def test_another_process_finds_the_jobs_of_the_first(server: Served) -> None:
    """With the id of its session, what one program submitted is followed by the next, and told from the beginning."""
    async with connected(server) as client:
        job = client.submit(REQUEST)
        saved = client.session
        assert isinstance(await anext(client.follow(job)), Accepted)
    async with connected(server, session=saved) as client:
        assert client.open == (job,)
        events = await events_of(client.follow(job))
    assert isinstance(events[0], Accepted)
    assert isinstance(events[-1], Done)
    await settled(server)


async def test_nobody_follows_a_job_that_is_not_there(server: Served) -> None:
    """An unknown id is refused in words."""
    async with connected(server) as client:
        with pytest.raises(Refused) as refusal:
            await anext(client.follow("never"))
    assert refusal.value.error == describe("unknown_job")


async def test_a_cancelled_job_ends(server: Served) -> None:
    """It ends through `generate`, with `cancelled`."""
    server.working = False
    async with connected(server) as client:
        async for event in client.generate(REQUEST, job="mine"):
            last = event
            await client.cancel("mine")
    assert isinstance(last, Cancelled)


async def test_whoever_leaves_generate_has_the_job_cancelled(server: Served) -> None:
    """A job that nobody looks at any more is stopped, and forgotten once it ended."""
    server.working = False
    async with connected(server) as client:
        async with contextlib.aclosing(client.generate(REQUEST)) as events:
            await anext(events)
        await settled(server)
        assert client.open == ()


async def test_whoever_stops_at_the_end_has_seen_it(server: Served) -> None:
    """Leaving the loop with the terminal event, as most programs do, lets the daemon forget the job."""
    async with connected(server) as client:
        async for event in client.generate(REQUEST):
            if isinstance(event, TERMINAL):
                break
        await settled(server)
        assert client.open == ()


async def test_the_end_of_a_program_cancels_what_it_generates(server: Served) -> None:
    """A program that is interrupted takes its jobs along, for the words reach the daemon before it hangs up."""
    server.working = False

    async def interrupted() -> None:
        async with connected(server) as client:
            async for _ in client.generate(REQUEST):
                raise KeyError

    with pytest.raises(KeyError):
        await interrupted()
    (painting,) = [painting for session in server.core.sessions.values() for painting in session.jobs.values()]
    assert painting.ended


async def test_paint_returns_the_pictures(server: Served) -> None:
    """One call for who wants the result, with a look at the way."""
    seen: list[Event] = []
    async with connected(server) as client:
        pictures = await client.paint(INTO, TILES, watch=seen.append)
    assert [picture.index for picture in pictures] == [0, 1]
    assert isinstance(seen[-1], Done)


async def test_paint_says_why_there_is_no_picture(server: Served) -> None:
    """A refused job raises the daemon's own sentence; so does one that is cancelled."""
    async with connected(server) as client:
        with pytest.raises(Refused, match="no model called"):
            await client.paint(Request(model="x", task="text_to_image", width=1, height=1))
        server.working = False
        painting = asyncio.create_task(client.paint(REQUEST))
        while not client.open:
            await asyncio.sleep(0.01)
        await client.cancel(client.open[0])
        with pytest.raises(Refused):
            await painting


@pytest.mark.parametrize(
    ("code", "error"),
    [(RESUMED_ELSEWHERE, "resumed_elsewhere"), (REVOKED, "unauthorized"), (1009, "malformed_message")],
)
async def test_some_ends_are_final(server: Served, code: int, error: str) -> None:
    """After these close codes another connection would be useless, and none is tried."""
    server.working = False
    async with connected(server) as client:
        events = client.generate(REQUEST)
        await anext(events)
        await server.close(code)
        with pytest.raises(Refused) as refusal:
            await events_of(events)
        with pytest.raises(Refused):
            client.submit(REQUEST)
    assert refusal.value.error.code == error
    assert server.handshakes == 1


async def test_a_refusal_that_cannot_heal_ends_it(server: Served) -> None:
    """A token that was taken away in between is not tried again."""
    server.working = False
    async with connected(server) as client:
        events = client.generate(REQUEST)
        await anext(events)
        server.refusal = (401, describe("unauthorized"))
        server.cut()
        with pytest.raises(Refused) as refusal:
            await events_of(events)
    assert refusal.value.error.code == "unauthorized"
    assert server.handshakes == 2


async def test_patience_ends(server: Served) -> None:
    """A daemon that does not come back in time is given up."""
    server.working = False
    async with connected(server, patience=0.5) as client:
        events = client.generate(REQUEST)
        await anext(events)
        server.refusal = (503, describe("shutting_down"))
        server.cut()
        with pytest.raises(Refused) as refusal:
            await events_of(events)
    assert refusal.value.error.code == "disconnected"
    assert server.handshakes > 1


async def test_without_reconnecting_the_first_loss_is_the_last(server: Served) -> None:
    """A program that wants to know of each loss is told."""
    server.working = False
    async with connected(server, reconnect=False) as client:
        events = client.generate(REQUEST)
        await anext(events)
        server.cut()
        with pytest.raises(Refused) as refusal:
            await events_of(events)
    assert refusal.value.error.code == "disconnected"
    assert server.handshakes == 1


async def test_a_daemon_that_breaks_the_language_is_left(server: Served) -> None:
    """Wrong bytes end the conversation with a sentence."""
    server.working = False
    async with connected(server) as client:
        events = client.generate(REQUEST)
        await anext(events)
        await server.sockets[0].send(b"\xc1")
        with pytest.raises(Refused) as refusal:
            await events_of(events)
    assert refusal.value.error.code == "out_of_order"


async def test_what_cannot_be_reached_is_said_at_once() -> None:
    """The first attempt is not repeated: whoever sits before it wants to know."""
    for url in ("ws://127.0.0.1:9", "nonsense", "ws://[nonsense"):
        with pytest.raises(Refused) as refusal:
            async with connect(url, TOKEN):
                pass
        assert refusal.value.error.code == "unreachable"


async def test_a_wrong_token_is_said_at_once(server: Served) -> None:
    """The daemon's refusal of the first connection is raised."""
    server.refusal = (401, describe("unauthorized"))
    with pytest.raises(Refused) as refusal:
        async with connected(server):
            pass
    assert refusal.value.error.code == "unauthorized"


async def test_the_own_daemons_token_is_read(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one machine nobody copies a token, and it is offered to no other machine."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path))
    with pytest.raises(Refused, match="not running"):
        async with connect(server.url):
            pass
    (tmp_path / "token").write_text(TOKEN + "\n")
    async with connect(server.url) as client:
        assert client.worker.state == "ready"
    with pytest.raises(Refused, match="token"):
        async with connect("wss://elsewhere.example"):
            pass


async def test_errors_of_no_job_are_logged(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    """What the daemon objects to is not lost, and does no harm."""
    async with connected(server) as client:
        (line,) = server.core.lines
        line.say(Error(describe("internal")))
        await client.paint(REQUEST)
    assert "Something went wrong" in caplog.text


def test_pauses_grow_and_are_never_alike() -> None:
    """They double up to a bound, with at least half of each left to chance."""
    some, others = (pauses() for _ in range(2))
    first, second = ([next(one) for _ in range(12)] for one in (some, others))
    assert first != second
    for number, pause in enumerate(first):
        longest = min(LAST_DELAY, FIRST_DELAY * 2**number)
        assert longest / 2 <= pause <= longest
