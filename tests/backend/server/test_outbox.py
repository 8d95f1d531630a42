"""What waits for a client: in which order it is sent, and what is dropped."""

from __future__ import annotations

import asyncio

from underpaint_backend.server.outbox import MAX_ANSWERS, MAX_TILES, Outbox, TileWanted
from underpaint_backend.server.sessions import Job, Session
from underpaint_protocol.messages import (
    Accepted,
    Cancelled,
    Missing,
    Position,
    Preview,
    Progress,
    Pulling,
    Request,
    Started,
    Submit,
)

REQUEST = Request("primer", "text_to_image", 64, 64)
ANSWER = Missing((), query=1)


def preview(step: int, job: str = "a", index: int = 0) -> Preview:
    return Preview(job, index, step, 1, 1, b"x", 0.0)


def session_with(*jobs: str) -> Session:
    """A session whose jobs were accepted."""
    session = Session("0" * 32, "owner", "test")
    session.now_reserved(1000)
    for name in jobs:
        job = session.jobs[name] = Job(session, Submit(name, REQUEST))
        session.tell(job, Accepted(name, 0))
    return session


def everything(outbox: Outbox) -> list[object]:
    """All that can be sent now."""
    taken = []
    while (message := outbox.take()) is not None:
        taken.append(message)
    return taken


def test_answers_go_before_state_before_previews_before_tiles() -> None:
    """A large transfer holds up nothing that is small, and nothing holds up an answer."""
    outbox, session = Outbox(), session_with("a")
    outbox.send_tiles("a", [b"1" * 16])
    outbox.show(preview(1))
    outbox.follow(session, 0)
    outbox.put(ANSWER)
    assert everything(outbox) == [ANSWER, Accepted("a", 0, 1), preview(1), TileWanted(b"1" * 16, "a")]


def test_only_the_newest_preview_and_place_are_kept() -> None:
    """A slow client sees fewer previews and places, never old ones; each picture of a batch has a slot of its own."""
    outbox = Outbox()
    for step in range(100):
        outbox.show(preview(step))
        outbox.show(preview(step, index=1))
        outbox.show(Position("a", 100 - step))
    assert everything(outbox) == [preview(99), preview(99, index=1), Position("a", 1)]


def test_no_preview_comes_after_the_end_of_its_job() -> None:
    """What ended drops its previews, and only its own."""
    outbox, session = Outbox(), session_with("a", "b")
    outbox.follow(session, 2)
    outbox.show(preview(1, "a"))
    outbox.show(preview(1, "b"))
    session.tell(session.jobs["a"], Cancelled("a"))
    assert everything(outbox) == [Cancelled("a", 3), preview(1, "b")]


def test_of_a_model_on_its_way_the_newest_news_are_kept() -> None:
    """Each model has a slot, which the end of a job that is called like it does not touch."""
    outbox, session = Outbox(), session_with("a")
    outbox.follow(session, 1)
    for done in range(10):
        outbox.show(Pulling("a", done, 10))
        outbox.show(Pulling("b", done, 10))
    session.tell(session.jobs["a"], Cancelled("a"))
    assert everything(outbox) == [Cancelled("a", 2), Pulling("a", 9, 10), Pulling("b", 9, 10)]


def test_state_waits_until_it_is_written_down_and_keeps_its_order() -> None:
    """What comes after a message that is not safe yet is not sent before it."""
    outbox, session = Outbox(), session_with("a", "b")
    outbox.follow(session, 2)
    unsafe = session.tell(session.jobs["a"], Cancelled("a"), safe=False)
    session.tell(session.jobs["b"], Started("b", 1))
    assert everything(outbox) == []
    session.now_safe(unsafe)
    assert everything(outbox) == [Cancelled("a", 3), Started("b", 1, 4)]


def test_who_resumes_gets_what_came_after_and_who_had_it_gets_no_more() -> None:
    """Open twice, close the first: the second hears everything (one of our peers loses it)."""
    lost: list[str] = []
    first, second = Outbox(lambda: lost.append("first")), Outbox()
    session = session_with("a")
    first.follow(session, 0)
    assert everything(first) == [Accepted("a", 0, 1)]
    second.follow(session, 1)
    session.tell(session.jobs["a"], Progress("a", "loading", 0.0))
    assert lost == ["first"]
    assert everything(first) == []
    assert everything(second) == [Progress("a", "loading", 0.0, seq=2)]


def test_following_again_from_an_earlier_number_tells_again() -> None:
    """A connection may resume the session that it has."""
    outbox, session = Outbox(), session_with("a")
    outbox.follow(session, 0)
    everything(outbox)
    outbox.follow(session, 0)
    assert everything(outbox) == [Accepted("a", 0, 1)]


async def test_a_client_that_asks_faster_than_it_reads_is_not_read_until_it_has() -> None:
    """Answers that wait are bounded by not reading more questions; taking one makes room."""
    outbox = Outbox()
    for _ in range(MAX_ANSWERS):
        await asyncio.wait_for(outbox.room(), 1)
        outbox.put(ANSWER)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.next()
    await asyncio.wait_for(waiting, 1)


async def test_tiles_that_wait_are_bounded_too() -> None:
    """So are tiles that were asked for."""
    outbox = Outbox()
    outbox.send_tiles("a", [b"1" * 16] * MAX_TILES)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.next()
    await asyncio.wait_for(waiting, 1)


async def test_drained_waits_for_the_last_message_to_be_sent() -> None:
    """An outbox is drained when the sender came back for more."""
    outbox = Outbox()
    outbox.put(ANSWER)
    drained = asyncio.create_task(outbox.drained())
    await outbox.next()
    await asyncio.sleep(0)
    assert not drained.done()
    sender = asyncio.create_task(outbox.next())
    async with asyncio.timeout(1):
        await drained
    sender.cancel()


async def test_a_connection_that_is_gone_keeps_nobody_waiting() -> None:
    """Whoever waits for room or for the last message goes on, and nothing is kept for a client that is gone."""
    outbox = Outbox()
    for _ in range(MAX_ANSWERS):
        outbox.put(ANSWER)
    waiting = [asyncio.create_task(outbox.room()), asyncio.create_task(outbox.drained())]
    await asyncio.sleep(0)
    outbox.close()
    async with asyncio.timeout(1):
        await asyncio.gather(*waiting)
    outbox.put(ANSWER)
    outbox.send_tiles("a", [b"1" * 16])
    assert everything(outbox) == []


async def test_who_waits_for_a_message_gets_the_one_that_comes() -> None:
    """The sender sleeps until there is something to send."""
    outbox = Outbox()
    sender = asyncio.create_task(outbox.next())
    await asyncio.sleep(0)
    outbox.put(ANSWER)
    async with asyncio.timeout(1):
        assert await sender == ANSWER


async def test_long_answers_count_for_as_much_as_they_name() -> None:
    """A few answers that name thousands of tiles each are as full as many that name none."""
    outbox, long = Outbox(), Missing((b"1" * 16,) * 4096, query=1)
    while True:
        try:
            async with asyncio.timeout(0.01):
                await outbox.room()
        except TimeoutError:
            break
        outbox.put(long)
    waiting = len(everything(outbox))
    assert waiting < MAX_ANSWERS


async def test_one_that_was_taken_from_far_too_many_makes_no_room() -> None:
    """There is room again when there are fewer than the bound, not as soon as one is gone."""
    outbox = Outbox()
    for _ in range(MAX_ANSWERS + 2):
        outbox.put(ANSWER)
    await outbox.next()
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.next()
    await outbox.next()
    await asyncio.wait_for(waiting, 1)
