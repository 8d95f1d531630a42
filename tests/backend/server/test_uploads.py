"""How many pixels a token may send of which no picture is made."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from underpaint_backend.server import uploads
from underpaint_backend.server.uploads import WINDOW, Uploads
from underpaint_protocol.messages import Limits

LIMITS = Limits(1 << 20, 4, 1, max_tile_bytes=1 << 20, keep_seconds=60, stall_seconds=10)
HALF = 1 << 19


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
        assert sent.seconds_until_more("anna", 1, LIMITS) == WINDOW / 2
        assert sent.seconds_until_more("bert", HALF, LIMITS) == 0
        clock[0] += WINDOW / 2


@pytest.mark.usefixtures("clock")
def test_an_accepted_job_clears_the_account() -> None:
    """Of its owner alone; who has none is not disturbed."""
    sent = Uploads()
    for owner in ("anna", "bert"):
        for _ in range(4):
            sent.seconds_until_more(owner, HALF, LIMITS)
    sent.used_by_a_job("anna")
    sent.used_by_a_job("carl")
    assert sent.seconds_until_more("anna", HALF, LIMITS) == 0
    assert sent.seconds_until_more("bert", 1, LIMITS) > 0


@pytest.mark.usefixtures("clock")
def test_small_tiles_are_counted_too() -> None:
    """Each takes a slot on the disk, however small it is; a job of many small pictures still gets through."""
    sent, limits = Uploads(), replace(LIMITS, max_tile_bytes=16 << 16)
    assert all(sent.seconds_until_more("anna", 1, limits) == 0 for _ in range(2 * (4096 + 16)))
    assert sent.seconds_until_more("anna", 1, limits) > 0
