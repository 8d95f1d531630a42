"""How many pixels a token may send of which no picture is made."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from underpaint_backend.server import uploads
from underpaint_backend.server.uploads import WINDOW, Uploads
from underpaint_protocol.messages import Limits, Tile

LIMITS = Limits(1 << 20, 4, 1, max_tile_bytes=1 << 20, keep_seconds=60, stall_seconds=10)
HALF = Tile(bytes(16), 1 << 19, b"")
DOT = Tile(b"." * 16, 1, b"")


def halves(count: int, first: int = 0) -> list[Tile]:
    """So many tiles of half of what jobs may need, each with its own name."""
    return [replace(HALF, name=(first + n).to_bytes(16, "big")) for n in range(count)]


def stored(sent: Uploads, owner: str, tiles: list[Tile]) -> list[Tile]:
    """Those of `tiles` that may be stored at once."""
    return [tile for tile in tiles if sent.seconds_until_more(owner, tile, LIMITS) == 0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which stands still."""
    moment = [time.monotonic()]

    class Clock:
        monotonic = staticmethod(lambda: moment[0])

    monkeypatch.setattr(uploads, "time", Clock)
    return moment


def test_what_jobs_may_need_can_be_sent_twice(clock: list[float]) -> None:
    """The next tile has to wait until the minute is over, and then the same may be sent again."""
    sent = Uploads()
    for _ in range(2):
        assert [sent.seconds_until_more("anna", HALF, LIMITS) for _ in range(4)] == [0] * 4
        clock[0] += WINDOW / 2
        assert sent.seconds_until_more("anna", DOT, LIMITS) == WINDOW / 2
        assert sent.seconds_until_more("bert", HALF, LIMITS) == 0
        clock[0] += WINDOW / 2


@pytest.mark.usefixtures("clock")
def test_an_accepted_job_makes_room_for_what_it_uses() -> None:
    """For its owner alone; who sent nothing is not disturbed."""
    sent, tiles = Uploads(), halves(4)
    for owner in ("anna", "bert"):
        assert stored(sent, owner, tiles) == tiles
    for owner in ("anna", "carl"):
        sent.used_by_a_job(owner, [tile.name for tile in tiles])
    assert stored(sent, "anna", halves(5, 4)) == halves(4, 4)
    assert stored(sent, "bert", [DOT]) == []


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("used", [[], [DOT.name, b"_" * 16]], ids=["nothing", "what others sent"])
def test_a_job_makes_no_room_for_what_it_does_not_use(used: list[bytes]) -> None:
    """However many there are: a tiny one after every few tiles would else fill the store."""
    sent = Uploads()
    came = []
    for round_ in range(20):
        came += stored(sent, "anna", halves(2, 2 * round_))
        sent.used_by_a_job("anna", used)
    assert came == halves(4)


@pytest.mark.usefixtures("clock")
def test_a_tile_makes_room_once() -> None:
    """However often a job names it, and however many jobs do; sent twice, it counts once more."""
    sent, (tile, other) = Uploads(), halves(2)
    stored(sent, "anna", [tile, tile, other, other])
    for _ in range(3):
        sent.used_by_a_job("anna", [tile.name] * 3)
    assert stored(sent, "anna", halves(4, 2)) == halves(1, 2)


def test_what_was_counted_in_an_earlier_minute_makes_no_room(clock: list[float]) -> None:
    """Those tiles do not count any more."""
    sent = Uploads()
    stored(sent, "anna", halves(4))
    clock[0] += WINDOW
    stored(sent, "anna", halves(4, 4))
    sent.used_by_a_job("anna", [tile.name for tile in halves(4)])
    assert stored(sent, "anna", [DOT]) == []


@pytest.mark.usefixtures("clock")
def test_what_was_refused_makes_no_room() -> None:
    """It is not here, and is not remembered either: what is kept of names is bounded, too."""
    sent, tiles = Uploads(), halves(100)
    assert stored(sent, "anna", tiles) == tiles[:4]
    sent.used_by_a_job("anna", [tile.name for tile in tiles[4:]])
    assert stored(sent, "anna", [DOT]) == []


@pytest.mark.usefixtures("clock")
def test_jobs_within_their_bounds_always_fit() -> None:
    """However many there are in a minute."""
    sent = Uploads()
    for job in range(100):
        tiles = halves(2, 2 * job)
        assert stored(sent, "anna", tiles) == tiles
        sent.used_by_a_job("anna", [tile.name for tile in tiles])


@pytest.mark.usefixtures("clock")
def test_small_tiles_are_counted_too() -> None:
    """Each takes a slot on the disk, however small it is; a job of many small pictures still gets through."""
    sent, limits = Uploads(), replace(LIMITS, max_tile_bytes=16 << 16)
    assert all(sent.seconds_until_more("anna", DOT, limits) == 0 for _ in range(2 * (4096 + 16)))
    assert sent.seconds_until_more("anna", DOT, limits) > 0
    sent.used_by_a_job("anna", [DOT.name])
    assert sent.seconds_until_more("anna", DOT, limits) == 0
