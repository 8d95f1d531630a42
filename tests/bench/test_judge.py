"""The judge of the faults bench finds what it is there to find."""

from __future__ import annotations

import pytest
from endurance.judge import Verdict, judge
from endurance.plan import Planned, plan
from endurance.record import Entry
from underpaint_protocol.messages import Request

JOBS = [
    Planned("plain", Request("tiny-4", "text_to_image", 64, 64), {}),
    Planned("pair", Request("tiny-4", "text_to_image", 64, 64, batch=2), {}, conduct="cancelled"),
]
CALM = [Entry(1, "picture", "plain", detail="a")]
CALM += [Entry(1, "picture", "pair", detail="b"), Entry(1, "picture", "pair", detail="c", number=1)]
PLAIN = [Entry(1, "picture", "plain", detail="a"), Entry(1, "done", "plain", 5, "s")]
PAIR = [Entry(1, "cancelled", "pair", 9, "s")]


def judged(*entries: Entry) -> Verdict:
    verdict = Verdict()
    judge(verdict, 0, JOBS, entries, CALM)
    return verdict


def test_an_undisturbed_client_is_found_innocent() -> None:
    """A job that was done with its picture, and one that was cancelled as it was asked to be."""
    verdict = judged(*PLAIN, *PAIR)
    assert verdict.total == 0
    assert verdict.ends == {"done": 1, "cancelled": 1}


def test_a_job_without_an_end_is_lost() -> None:
    """It was submitted, and nothing more was heard."""
    assert judged(*PLAIN, Entry(1, "submit", "pair")).lost == ["0/pair"]


def test_a_job_that_is_accepted_twice_was_lost_in_between() -> None:
    """Its client submitted it again; the daemon had promised to keep it."""
    again = [Entry(1, "accepted", "plain", seq, "s") for seq in (2, 3)]
    assert judged(*again, *PLAIN, *PAIR).lost == ["0/plain was forgotten, and accepted anew"]
    assert judged(again[0], again[0], *PLAIN, *PAIR).total == 0


def test_a_worker_that_dies_excuses_a_job_that_was_tried_again() -> None:
    """The daemon tries again once; a job that failed with its first worker was not."""
    failed = Entry(1, "failed", "plain", 6, "s", detail="worker_died: killed")
    assert len(judged(failed, *PAIR).different) == 1
    assert judged(Entry(1, "started", "plain", 5, "s", number=2), failed, *PAIR).total == 0


def test_a_client_that_was_told_nonsense_counts() -> None:
    """A daemon that breaks the language is no better than one that loses a job."""
    assert judged(*PLAIN, *PAIR, Entry(1, "broken", detail="a fraction fell")).total == 1


def test_an_end_that_a_later_life_hears_again_is_the_same_one() -> None:
    """The number and the session say so."""
    assert judged(*PLAIN, *PAIR, Entry(2, "cancelled", "pair", 9, "s")).total == 0


@pytest.mark.parametrize(
    "second",
    [Entry(2, "done", "pair", 12, "s"), Entry(2, "cancelled", "pair", 9, "t"), Entry(1, "done", "pair", 9, "s")],
)
def test_another_end_is_a_second_one(second: Entry) -> None:
    """Under another number, in another session, or told twice to one life."""
    assert len(judged(*PLAIN, *PAIR, second).twice) == 1


@pytest.mark.parametrize(
    "entries",
    [
        [Entry(1, "picture", "plain", detail="other"), Entry(1, "done", "plain", 5, "s")],
        [Entry(1, "done", "plain", 5, "s")],
        [Entry(1, "cancelled", "plain", 5, "s")],
        [Entry(1, "failed", "plain", 5, "s", detail="internal: oh")],
    ],
)
def test_another_outcome_differs(entries: list[Entry]) -> None:
    """Another picture, none, an end that nobody asked for, or a failure that no fault explains."""
    assert len(judged(*entries, *PAIR).different) == 1


def test_a_plan_is_the_same_in_each_life() -> None:
    """A client that is started again asks for the very same."""
    assert plan(3, 1, 12) == plan(3, 1, 12)
    assert plan(3, 1, 12) != plan(3, 2, 12)
