"""The life of a job."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from underpaint_protocol.exceptions import OutOfOrder
from underpaint_protocol.fields import Record
from underpaint_protocol.jobs import JobState
from underpaint_protocol.messages import Accepted, Cancelled, Done, Progress, Started

ACCEPTED = Accepted("a", 0)
HALF = Progress("a", "denoising", 0.5)


def after(*messages: Record) -> JobState:
    state = JobState()
    for message in messages:
        state.apply(message)
    return state


def test_a_job_is_accepted_started_and_ends() -> None:
    """Each message moves the job on."""
    state = after(ACCEPTED, Started("a", 1), HALF)
    assert (state.accepted, state.attempt, state.fraction, state.ended) == (True, 1, 0.5, False)
    assert after(ACCEPTED, Started("a", 1), Done("a", 1.0)).ended


def test_progress_begins_anew_with_an_attempt() -> None:
    """A fraction may fall only with another start, whose number is not lower: one that began twice counts once."""
    assert after(ACCEPTED, Started("a", 1), HALF, Started("a", 3)).fraction == 0.0
    assert after(ACCEPTED, Started("a", 1), HALF, Started("a", 1)).fraction == 0.0


@pytest.mark.parametrize(
    "messages",
    [
        [HALF],
        [Done("a", 1.0)],
        [ACCEPTED, ACCEPTED],
        [ACCEPTED, Started("a", 1), HALF, Progress("a", "denoising", 0.4)],
        [ACCEPTED, Started("a", 2), Started("a", 1)],
        [ACCEPTED, Cancelled("a"), HALF],
        [ACCEPTED, Done("a", 1.0), Done("a", 1.0)],
    ],
)
def test_what_may_not_come_now_is_noticed(messages: list[Record]) -> None:
    """Anything before `accepted` or after the end, a falling fraction and an attempt that was made break the order."""
    with pytest.raises(OutOfOrder):
        after(*messages)


@given(st.lists(st.floats(0, 1)))
def test_a_fraction_never_falls(fractions: list[float]) -> None:
    """Any order of fractions is followed up to the first that falls."""
    state = after(ACCEPTED, Started("a", 1))
    highest = 0.0
    for fraction in fractions:
        if fraction < highest:
            with pytest.raises(OutOfOrder):
                state.apply(Progress("a", "denoising", fraction))
            assert state.fraction == highest
            return
        state.apply(Progress("a", "denoising", fraction))
        highest = fraction
