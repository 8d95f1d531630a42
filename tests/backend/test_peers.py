"""What systems like this one get wrong about connections, cancelling, queues and uploads, once each on a real daemon.

Each test says what was measured elsewhere.
"""

from __future__ import annotations

import asyncio
import random
import time

import msgpack
import pytest
from underpaint_backend.launch import Launched
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    Accepted,
    Cancelled,
    Error,
    Have,
    Missing,
    Preview,
    Progress,
    Request,
    Tile,
    vocabulary,
)
from websockets.exceptions import ConnectionClosed

from tests.backend.server.calling import INPAINT, LONG, SHORT, Caller, ask, greeted


async def test_a_client_that_does_not_read_holds_up_nobody(daemon: Launched) -> None:
    """Elsewhere, when one client stopped reading, another one heard nothing for 25 s."""
    deaf, _ = await greeted(daemon)
    deaf.transport.pause_reading()  # type: ignore[attr-defined]
    names = tuple(random.Random(1).randbytes(16) for _ in range(4096))
    question = vocabulary.encode(Have(1, names))
    try:
        async with asyncio.timeout(3):
            while True:
                await deaf.send(question)
    except TimeoutError:
        pass  # the daemon stopped reading the one that does not read
    other, _ = await greeted(daemon)
    slowest = 0.0
    for query in range(50):
        began = time.monotonic()
        assert isinstance(await ask(other, Have(query, (b"0" * 16,))), Missing)
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2
    await other.close()
    deaf.transport.abort()


async def test_the_second_connection_of_a_session_hears_everything(daemon: Launched) -> None:
    """Elsewhere: open an id, open it again, close the first, and the second hears nothing."""
    first = Caller(daemon)
    await first.connect()
    first.submit("a", LONG)
    await first.denoising("a")
    async with Caller(daemon, session=first.core.session) as second:
        with pytest.raises(ConnectionClosed):
            await first.end_of("a")
        await second.until(lambda event: isinstance(event, Preview))
        second.core.cancel("a")
        assert isinstance(await second.end_of("a"), Cancelled)


async def test_a_picture_that_is_finished_while_nobody_listens_is_not_lost(daemon: Launched) -> None:
    """Elsewhere, results that were finished during a lost connection were gone."""
    caller = Caller(daemon)
    await caller.connect()
    caller.submit("a", SHORT)
    await caller.until(lambda event: isinstance(event, Accepted))
    caller.cut()
    async with Caller(daemon) as other:  # its job is behind, so that the first one has ended when this one does
        other.submit("b", SHORT)
        await other.end_of("b")
    async with caller:
        await caller.end_of("a")
    assert [type(event).__name__ for event in caller.of("a")].count("Picture") == 1


async def test_a_cancel_without_an_id_stops_nobody(daemon: Launched) -> None:
    """Elsewhere, an interrupt without an id kills whatever runs, whosever it is."""
    async with Caller(daemon) as caller:
        caller.submit("a", LONG)
        await caller.denoising("a")
        other, _ = await greeted(daemon)
        for message in ({"type": "cancel"}, {"type": "cancel", "job": None}, {"type": "cancel", "job": ""}):
            answer = await ask(other, msgpack.packb(message))
            assert isinstance(answer, Error)
            assert answer.error.code == "invalid_field"
        await other.close()
        reached = max(event.step for event in caller.of("a") if isinstance(event, Progress))
        await caller.until(lambda event: isinstance(event, Progress) and event.step > reached)


async def test_one_clients_many_jobs_do_not_hold_up_the_one_of_another(daemon: Launched) -> None:
    """Elsewhere the queue is first come, first served, whoever fills it."""
    async with Caller(daemon) as greedy, Caller(daemon) as modest:
        for number in range(10):
            greedy.submit(f"job{number}", SHORT)
        await greedy.until(lambda event: isinstance(event, Accepted) and event.job == "job9")
        modest.submit("mine", SHORT)
        await modest.end_of("mine")
        await greedy.end_of("job2")
        ended = [event.job for event in greedy.events if type(event).__name__ == "Done"]
        accepted = next(event for event in modest.of("mine") if isinstance(event, Accepted))
        assert accepted.position <= 3
        assert "job9" not in ended


async def test_only_what_changed_travels(daemon: Launched) -> None:
    """Elsewhere the whole picture is sent again for each job, as one PNG named by a checksum of 32 bits."""
    pixels = bytearray(random.Random(2).randbytes(600 * 600 * 4))
    mask, mask_tiles = image_of(600, 600, 1, b"\xff" * 360_000)
    async with Caller(daemon) as caller:
        sent = []
        for job in ("first", "same", "stroke"):
            if job == "stroke":
                pixels[1200:1280] = bytes(80)
            image, tiles = image_of(600, 600, 4, pixels)
            request = Request("primer-inpaint", "inpaint", 600, 600, steps=1, image=image, mask=mask)
            caller.core.submit(job, request, {**tiles, **mask_tiles})
            sent.append(await _bytes_until_accepted(caller, job))
            caller.core.cancel(job)
            await caller.end_of(job)
    assert sent[0] > 600 * 600 * 4
    assert sent[1] < 2000
    assert sent[2] < 4000


async def _bytes_until_accepted(caller: Caller, job: str) -> int:
    sent = 0
    while not any(isinstance(event, Accepted) for event in caller.of(job)):
        while (frame := caller.core.next_frame()) is not None:
            sent += len(frame)
            await caller.socket.send(frame)
        caller.events += caller.core.receive(await caller.socket.recv(decode=False))
    return sent


async def test_a_preview_is_a_few_kilobytes(daemon: Launched) -> None:
    """Elsewhere a preview is scaled up first and has 37 to 53 KB."""
    async with Caller(daemon) as caller:
        caller.submit("a", INPAINT)
        await caller.end_of("a")
    sizes = [len(event.data) for event in caller.of("a") if isinstance(event, Preview)]
    assert sizes
    assert max(sizes) < 6000


async def test_a_tile_cannot_be_put_in_the_place_of_another(daemon: Launched) -> None:
    """Elsewhere pixels are named by crc32, which anybody can match; here a wrong name is found out."""
    socket, _ = await greeted(daemon)
    answer = await ask(socket, Tile(INPAINT.images[0].tiles[0][::-1], 4, b"evil"))
    assert isinstance(answer, Error)
    assert answer.error.code == "bad_tile"
    await socket.close()
