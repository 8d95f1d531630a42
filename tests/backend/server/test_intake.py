"""Tiles on their way into the store, and what waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from underpaint_backend.server.intake import AT_ONCE, Intake
from underpaint_backend.server.pixels import Pixels
from underpaint_backend.server.tiles import StoreFull, TileStore
from underpaint_protocol.encodings import encode
from underpaint_protocol.exceptions import TileError
from underpaint_protocol.messages import Tile
from underpaint_protocol.tiles import name_of

Refusal = TileError | StoreFull


@pytest.fixture
async def pixels(tmp_path: Path) -> AsyncIterator[Pixels]:
    """A store with room for twelve tiles."""
    pixels = Pixels(TileStore(tmp_path / "tiles", 12 * 100, 100))
    await pixels.open()
    yield pixels
    pixels.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Writes to the disk wait until it is set."""
    gate, put = threading.Event(), TileStore.put

    def put_late(store: TileStore, name: bytes, data: bytes) -> None:
        assert gate.wait(timeout=20)
        put(store, name, data)

    monkeypatch.setattr(TileStore, "put", put_late)
    yield gate
    gate.set()


def tile(shade: int) -> Tile:
    """Pixels of one colour."""
    data = bytes([shade]) * 100
    return Tile(name_of(data), 100, data)


async def test_tiles_are_stored_while_more_come(pixels: Pixels, gate: threading.Event) -> None:
    """So many that the next has to wait; afterwards all are there."""
    intake, tiles = Intake(pixels, pytest.fail), [tile(shade) for shade in range(AT_ONCE + 1)]
    for one in tiles[:-1]:
        await asyncio.wait_for(intake.put(one), 5)
    last = asyncio.create_task(intake.put(tiles[-1]))
    await asyncio.sleep(0.05)
    assert not last.done()
    gate.set()
    await last
    await intake.settled()
    assert pixels.missing(one.name for one in tiles) == []


async def test_a_difference_waits_for_its_base(pixels: Pixels, gate: threading.Event) -> None:
    """The base came right before, and is not stored yet."""
    intake, base = Intake(pixels, pytest.fail), tile(1)
    changed = bytes([1]) * 99 + b"x"
    await intake.put(base)
    difference = Tile(name_of(changed), 100, encode("xor", changed, base.data), "xor", base.name)
    late = asyncio.create_task(intake.put(difference))
    await asyncio.sleep(0.05)
    assert not late.done()
    gate.set()
    await late
    await intake.settled()
    assert pixels.missing([difference.name]) == []


async def test_a_refusal_is_heard_without_asking(pixels: Pixels) -> None:
    """A client that sends a damaged tile and waits for an answer has it."""
    heard: asyncio.Queue[Refusal] = asyncio.Queue()
    intake = Intake(pixels, heard.put_nowait)
    await intake.put(Tile(bytes(16), 3, b"abc"))
    assert isinstance(await asyncio.wait_for(heard.get(), 5), TileError)
    pixels_of_a_job = [tile(shade) for shade in range(12)]
    for one in pixels_of_a_job:
        await intake.put(one)
    await intake.settled()
    pixels._store.pin(one.name for one in pixels_of_a_job)
    await intake.put(tile(99))
    assert isinstance(await asyncio.wait_for(heard.get(), 5), StoreFull)


async def test_a_refusal_is_heard_before_what_follows(pixels: Pixels, gate: threading.Event) -> None:
    """Whoever waits until all is settled has heard of what went wrong."""
    heard: list[Refusal] = []
    intake = Intake(pixels, heard.append)
    await intake.put(Tile(bytes(16), 3, b"abc"))
    await intake.put(tile(1))
    assert heard == []
    gate.set()
    await intake.settled()
    assert [type(error) for error in heard] == [TileError]


async def test_what_nobody_foresaw_is_in_the_log(
    pixels: Pixels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of ours is no refusal, and not lost either."""

    def broken(store: TileStore, name: bytes, data: bytes) -> None:
        raise RuntimeError("no one foresaw this")

    monkeypatch.setattr(TileStore, "put", broken)
    intake = Intake(pixels, pytest.fail)
    await intake.put(tile(1))
    await intake.settled()
    assert "no one foresaw this" in caplog.text
