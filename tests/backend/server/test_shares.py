"""What the jobs of each token take of the store, against a plain reckoning, and who has to leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from underpaint_backend.server.farewells import Return, leaving_for_room
from underpaint_backend.server.sessions import Job, Session
from underpaint_backend.server.shares import Shares
from underpaint_protocol.messages import Done, Request, Submit

OWNERS = ("anna", "bert")
TILES = {bytes([number]) * 16: number for number in range(1, 6)}
"""By name, how many slots each takes."""
SUBMIT = Submit("a", Request("primer", "text_to_image", 64, 64))


def job_of(owner: str, results: int = 0, ended_at: float = 0.0) -> Job:
    """A job that ended, with a result of so many slots."""
    job = Job(Session(owner, owner, "test"), SUBMIT, slots_of_results=results, ended_at=ended_at)
    job.state.accepted = True
    job.state.apply(Done("a", 1.0))
    job.result_pins.add(bytes([results, int(ended_at)]) * 8)
    return job


def once(names: Iterable[bytes]) -> dict[bytes, tuple[int, int]]:
    """A store in which each result has its own tile, whose name begins with how many slots it takes."""
    return {name: (1, name[0]) for name in names}


class Sharing(RuleBasedStateMachine):
    """Jobs that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.shares = Shares()
        self.jobs: dict[Job, frozenset[bytes]] = {}

    def taken(self, *owners: str) -> int:
        counted = [job for job in self.jobs if job.session.owner in owners]
        tiles = {name for job in counted for name in self.jobs[job]}
        return sum(job.slots_of_all_results for job in counted) + sum(TILES[name] for name in tiles)

    @rule(owner=st.sampled_from(OWNERS), tiles=st.frozensets(st.sampled_from(list(TILES))), pictures=st.integers(0, 4))
    def add(self, owner: str, tiles: frozenset[bytes], pictures: int) -> None:
        job = Job(Session(owner, owner, "test"), SUBMIT, slots_of_all_results=pictures)
        needs = {name: TILES[name] for name in tiles}
        foretold = self.shares.with_another(owner, needs, pictures)
        self.shares.add(job, needs)
        self.jobs[job] = tiles
        assert foretold == (self.taken(owner), self.taken(*OWNERS))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), twice=st.booleans())
    def remove(self, data: st.DataObject, twice: bool) -> None:
        job = data.draw(st.sampled_from(list(self.jobs)))
        del self.jobs[job]
        for _ in range(1 + twice):
            self.shares.remove(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def look_without(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(list(self.jobs)))
        tiles = self.jobs.pop(job)
        with self.shares.without(job):
            self.all_is_counted()
        self.jobs[job] = tiles

    @rule(owner=st.sampled_from(OWNERS))
    def look_without_what_does_not_count(self, owner: str) -> None:
        for other in (None, job_of(owner)):
            with self.shares.without(other):
                self.all_is_counted()

    @invariant()
    def all_is_counted(self) -> None:
        assert {*self.shares} == {*self.jobs}
        taken = {owner: self.taken(owner) for owner in OWNERS}
        assert {owner: self.shares.of(owner) for owner in OWNERS} == taken
        assert +self.shares.by_owner() == +Counter(taken)
        assert self.shares.with_another("anna", {}, 0) == (taken["anna"], self.taken(*OWNERS))


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("short", "asker", "more", "expected"),
    [
        (1, None, 0, "b1"),
        (9, None, 0, "b1 b2 a1"),
        (100, None, 0, None),
        (1, "anna", 3, "b1"),
        (1, "anna", 30, "a1"),
        (5, "bert", 0, "b1 b2"),
        (9, "bert", 5, "b1 b2 a1"),
        (1, "cleo", 30, "b1"),
    ],
    ids=["most", "in-turn", "too-many", "less", "would-take-most", "own", "own-and-then-others", "new"],
)
def test_who_leaves(short: int, asker: str | None, more: int, expected: str | None) -> None:
    """Whoever would take most, what ended first of his; nothing if it does not help."""
    jobs = {
        "a1": job_of("anna", 3, 1.0),
        "b2": job_of("bert", 4, 3.0),
        "b1": job_of("bert", 4, 2.0),
        "empty": job_of("anna", 0, 0.0),
    }
    names = {job: name for name, job in jobs.items()}
    leaving = leaving_for_room(jobs.values(), Counter(anna=3, bert=8), Return(once, ()), short, asker, more)
    assert (leaving and " ".join(names[job] for job in leaving)) == expected


def test_nobody_leaves_for_who_takes_more() -> None:
    """What the asker takes for jobs that have not ended counts."""
    jobs = [job_of("anna", 3)]
    assert leaving_for_room(jobs, Counter(anna=3, bert=3), Return(once, ()), 1, "bert", 5) == jobs
    assert leaving_for_room(jobs, Counter(anna=3, bert=4), Return(once, ()), 1, "bert", 5) is None


class Returning(RuleBasedStateMachine):
    """Jobs that would go, with pictures of which some are the same, against a plain reckoning."""

    @initialize(data=st.data(), needed=st.frozensets(st.sampled_from(list(TILES))))
    def begin(self, data: st.DataObject, needed: frozenset[bytes]) -> None:
        self.needed = needed
        self.jobs = [job_of("anna", number) for number in range(5)]
        for job in self.jobs:
            job.result_pins = data.draw(st.sets(st.sampled_from(list(TILES)), min_size=1))
        elsewhere = data.draw(st.lists(st.sampled_from(list(TILES)), max_size=2))
        self.pins = Counter(elsewhere) + Counter(name for job in self.jobs for name in job.result_pins)
        self.gone: set[Job] = set()
        self.back = Return(self.pinned, needed)

    def pinned(self, names: Iterable[bytes]) -> dict[bytes, tuple[int, int]]:
        return {name: (self.pins[name], TILES[name]) for name in names}

    @rule(number=st.integers(0, 4))
    def change(self, number: int) -> None:
        job = self.jobs[number]
        (self.back.remove if job in self.gone else self.back.add)(job)
        self.gone ^= {job}

    @invariant()
    def all_is_reckoned(self) -> None:
        gone = Counter(name for job in self.gone for name in job.result_pins)
        free = {name for name in gone if gone[name] == self.pins[name]} - self.needed
        assert self.back.slots == sum(TILES[name] for name in free)


TestReturning = Returning.TestCase
TestReturning.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
