"""Many jobs while everything goes wrong at once."""

from __future__ import annotations

import asyncio
import random

from underpaint_backend.client import Client, connect
from underpaint_protocol.client import Picture
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import TERMINAL, Done, Error, Failed, Request

from tests.backend.client.serving import TOKEN, Served, served
from tests.protocol.reference import painted

PIXELS = bytes(range(96))
IMAGE, TILES = image_of(6, 4, 4, PIXELS, x=253, y=7)
INTO = Request(model="m", task="inpaint", width=6, height=4, image=IMAGE, batch=2)
JOBS, AT_ONCE = 60, 4


async def trouble(server: Served, chance: random.Random) -> None:
    """Cut connections, kill workers and daemons, and lose tiles, a few times a second."""
    core = server.core
    mishaps = [
        *(server.cut,) * 6,
        core.evict,
        core.kill_worker,
        lambda: core.restart(memory=True),
        lambda: core.restart(memory=False),
    ]
    while True:
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        chance.choice(mishaps)()


async def paint_some(client: Client) -> None:
    """Each job ends once; a finished one has all its pictures, once and right."""
    for _ in range(JOBS // AT_ONCE):
        events = [event async for event in client.generate(INTO, TILES)]
        (end,) = [event for event in events if isinstance(event, (*TERMINAL, Error))]
        pictures = [event for event in events if isinstance(event, Picture)]
        assert end is events[-1]
        assert isinstance(end, Done) or (isinstance(end, Failed) and end.error.code == "worker_died")
        if isinstance(end, Done):
            assert [picture.index for picture in pictures] == [0, 1]
        assert all(picture.pixels == painted(INTO, picture.index, PIXELS) for picture in pictures)


async def test_no_job_is_lost_in_a_storm() -> None:
    """Whatever is cut, killed and forgotten, each job ends once with its pictures, and all are acknowledged."""
    async with asyncio.timeout(120), served() as server:
        storm = asyncio.create_task(trouble(server, random.Random(7)))
        async with connect(server.url, TOKEN) as client:
            await asyncio.gather(*(paint_some(client) for _ in range(AT_ONCE)))
            storm.cancel()
            assert client.open == ()
        while any(session.jobs for session in server.core.sessions.values()):
            await asyncio.sleep(0.01)
