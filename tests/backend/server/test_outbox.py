"""What waits for a client: in which order it goes out, and what is dropped."""

from __future__ import annotations

import asyncio

import pytest
from underpaint_backend.server.outbox import Outbox, Overflow
from underpaint_protocol.blobs import chunks, digest_of, image_of
from underpaint_protocol.messages import Accepted, Cancelled, Done, Preview, Progress, Result

PIXELS = bytes(64)


def preview(step: int, job: str = "a", index: int = 0) -> Preview:
    return Preview(job, index, step, 1, 1, b"x", 0.0)


async def test_small_messages_overtake_pictures() -> None:
    """An answer goes ahead of pixels that wait, and pixels stay ahead of the result that names them."""
    outbox = Outbox()
    (chunk,) = chunks(digest_of(PIXELS), PIXELS)
    result = Result("a", 0, 0, image_of(4, 4, 4, PIXELS))
    for message in (chunk, result, Done("a", 1.0), Accepted("b", 0)):
        outbox.put(message)
    assert [await outbox.get() for _ in range(4)] == [Accepted("b", 0), chunk, result, Done("a", 1.0)]


async def test_only_the_newest_preview_of_a_picture_is_kept() -> None:
    """A slow client sees fewer previews, never old ones."""
    outbox = Outbox()
    for step in range(100):
        outbox.put(preview(step))
        outbox.put(preview(step, index=1))
    assert [await outbox.get(), await outbox.get()] == [preview(99), preview(99, index=1)]


async def test_no_preview_comes_after_the_end_of_its_job() -> None:
    """What ended drops its previews, and only its own."""
    outbox = Outbox()
    outbox.put(preview(1, "a"))
    outbox.put(preview(1, "b"))
    outbox.put(Cancelled("a"))
    assert [await outbox.get(), await outbox.get()] == [preview(1, "b"), Cancelled("a")]


async def test_a_client_that_reads_too_slowly_overflows() -> None:
    """Pictures wait only up to a bound."""
    outbox = Outbox(max_waiting=100)
    (chunk,) = chunks(digest_of(PIXELS), PIXELS)
    outbox.put(chunk)
    with pytest.raises(Overflow):
        outbox.put(chunk)


async def test_reading_makes_room_again() -> None:
    """What was sent no longer counts."""
    outbox = Outbox(max_waiting=100)
    (chunk,) = chunks(digest_of(PIXELS), PIXELS)
    for _ in range(10):
        outbox.put(chunk)
        assert await outbox.get() == chunk


async def test_drained_waits_for_the_last_message_to_be_sent() -> None:
    """An outbox is drained when the sender came back for more."""
    outbox = Outbox()
    outbox.put(Progress("a", "loading", 0.0))
    drained = asyncio.create_task(outbox.drained())
    await outbox.get()
    await asyncio.sleep(0)
    assert not drained.done()
    sender = asyncio.create_task(outbox.get())
    async with asyncio.timeout(1):
        await drained
    sender.cancel()
