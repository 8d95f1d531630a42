"""Waiting for one's turn."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from underpaint_backend.client import connect
from underpaint_backend.launch import Launched
from underpaint_protocol.messages import Request

from .conftest import Play
from .launch import Performance

LONG = Request(model="primer-inpaint", task="text_to_image", width=64, height=64, steps=1000)
PATIENCE = 120.0


async def occupy(daemon: Launched, begun: threading.Event, seen: Path) -> None:
    """Keep the daemon busy until the file `seen` is there."""
    async with asyncio.timeout(PATIENCE), connect(daemon.url, daemon.token) as client:
        job = client.submit(LONG)
        begun.set()
        while not seen.exists():
            await asyncio.sleep(0.05)
        await client.cancel(job)


@pytest.fixture(scope="module")
def seen(play: Play, daemon: Launched, tmp_path_factory: pytest.TempPathFactory) -> Performance:
    """What happened in Krita."""
    file = tmp_path_factory.mktemp("queue") / "seen"
    begun = threading.Event()
    other = threading.Thread(target=lambda: asyncio.run(occupy(daemon, begun, file)))
    other.start()
    assert begun.wait(PATIENCE)
    try:
        performance = play("queue", UNDERPAINT_SEEN=str(file))
    finally:
        file.touch()
        other.join(PATIENCE)
    assert performance.errors == [], performance.output
    return performance


def test_the_place_in_the_queue_is_shown(seen: Performance) -> None:
    """Counted in pictures; waiting can be ended."""
    assert seen.facts["waiting"] == "1 picture before yours"
    assert seen.facts["cancel"]


def test_the_turn_comes(seen: Performance) -> None:
    """When the other one is gone."""
    assert seen.facts["state"].startswith("Done")
