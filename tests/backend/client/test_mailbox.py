"""What waits for a program that is slow."""

from __future__ import annotations

import asyncio

import pytest
from underpaint_backend.client import Refused
from underpaint_backend.client.mailbox import Mailbox
from underpaint_protocol.client import Event
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import Accepted, Done, Position, Preview, Progress


def preview(step: int) -> Preview:
    return Preview("a", 0, step, 1, 1, b"jpeg", 0.0)


async def test_only_the_newest_preview_and_place_wait() -> None:
    """An older one makes room for a newer one; everything else is kept, in order."""
    mailbox = Mailbox()
    accepted, progress = Accepted("a", 2), Progress("a", "denoising", 0.5)
    events: list[Event] = [accepted, Position("a", 1), preview(1), Position("a", 0), progress, preview(2)]
    for event in events:
        mailbox.put(event)
    assert [await mailbox.take() for _ in range(4)] == [accepted, Position("a", 0), progress, preview(2)]


async def test_a_program_waits_for_what_comes() -> None:
    """Taking from an empty mailbox waits."""
    mailbox = Mailbox()
    taking = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)
    mailbox.put(Done("a", 1.0))
    assert await taking == Done("a", 1.0)


async def test_what_came_is_taken_before_the_reason_why_no_more_follows() -> None:
    """A lost connection does not hide the end that came before it."""
    mailbox = Mailbox()
    mailbox.put(Done("a", 1.0))
    mailbox.close(describe("disconnected"))
    assert await mailbox.take() == Done("a", 1.0)
    with pytest.raises(Refused):
        await mailbox.take()
