"""When a lost connection is tried again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from underpaint_krita.backoff import Backoff
from underpaint_krita.redial import GRACE, STEADY, Redial


@dataclass
class Clock:
    """A clock that a test sets."""

    time: float = 100.0

    def __call__(self) -> float:
        return self.time


def test_waits_double_up_to_a_bound() -> None:
    """From a quarter of a second to fifteen."""
    backoff = Backoff(draw=lambda low, high: high)
    assert [backoff.next() for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]
    backoff.reset()
    assert backoff.next() == 0.25


def test_waits_are_drawn() -> None:
    """Between half of the bound and all of it, so that clients do not all come back at once."""
    waits = {round(Backoff().next(), 6) for _ in range(50)}
    assert len(waits) > 10
    assert 0.125 <= min(waits) <= max(waits) <= 0.25


def test_while_a_picture_waits_it_is_tried_for_ever() -> None:
    """A week later too."""
    clock = Clock()
    redial = Redial(clock)
    redial.lost()
    clock.time += 7 * 24 * 3600
    assert redial.again(wanted=True) is not None


def test_otherwise_for_some_minutes() -> None:
    """And not at all where there never was a connection."""
    clock = Clock()
    redial = Redial(clock)
    assert redial.again(wanted=False) is None
    redial.connected()
    redial.lost()
    assert redial.again(wanted=False) is not None
    clock.time += GRACE + 1
    assert redial.again(wanted=False) is None
    assert redial.remaining is None


def test_the_remaining_time_runs_out() -> None:
    """And is not negative when the thread was late."""
    clock = Clock()
    redial = Redial(clock)
    assert redial.remaining is None
    redial.after(2.0)
    clock.time += 0.5
    assert redial.remaining == 1.5
    clock.time += 5
    assert redial.remaining == 0
    redial.connected()
    assert redial.remaining is None


def test_a_server_that_takes_and_drops_connections_is_not_hammered() -> None:
    """Only a connection that has lasted makes the next wait a short one."""
    clock = Clock()
    redial = Redial(clock)

    def lose_after(seconds: float) -> float:
        redial.connected()
        clock.time += seconds
        redial.lost()
        return redial.again(wanted=True) or 0

    waits = [lose_after(0.1) for _ in range(8)]
    assert all(later > earlier * 0.9 for earlier, later in itertools.pairwise(waits[:6]))
    assert waits[-1] > 5
    assert lose_after(STEADY) <= 0.25
