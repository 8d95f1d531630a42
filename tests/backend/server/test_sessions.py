"""Sessions: numbers that rise, messages that wait for their client, jobs that end once."""

from __future__ import annotations

import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from underpaint_backend.server import sessions
from underpaint_backend.server.outbox import Outbox
from underpaint_backend.server.sessions import SPARE, Entry, Job, Session
from underpaint_protocol.exceptions import OutOfOrder
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    TERMINAL,
    Accepted,
    Cancelled,
    Done,
    Position,
    Preview,
    Progress,
    Request,
    Result,
    Started,
    Submit,
)

IMAGE, TILES = image_of(8, 8, 4, bytes(256))
MASK, _ = image_of(8, 8, 1, bytes(64))
REQUEST = Request("primer", "inpaint", 8, 8, image=IMAGE, mask=MASK)


def begun(session: Session, name: str = "a") -> Job:
    """A job that was accepted."""
    job = session.jobs[name] = Job(session, Submit(name, REQUEST))
    session.tell(job, Accepted(name, 0))
    return job


@pytest.fixture
def session() -> Session:
    """A new session, with some numbers."""
    return numbered(Session("0" * 32, "anna", "test"))


def numbered(session: Session) -> Session:
    """A session whose numbers are reserved for long."""
    session.now_reserved(1_000_000)
    return session


def test_a_job_ends_once(session: Session) -> None:
    """A second end is refused, and nobody hears of it."""
    job = begun(session)
    session.tell(job, Done("a", 1.0))
    with pytest.raises(OutOfOrder):
        session.tell(job, Cancelled("a"))
    assert session.after(2) is None


def test_numbers_go_on_where_the_journal_says(session: Session) -> None:
    """After a restart no number is used twice: those that were reserved are skipped."""
    assert Session("0" * 32, "anna", "test", 700).tell(begun(session), Started("a", 1)).seq == 700


def test_numbers_are_reserved_before_they_run_out(session: Session) -> None:
    """There are always some hundred numbers left that the journal knows of."""
    fresh = Session("0" * 32, "anna", "test")
    assert fresh.needs_numbers
    fresh.reserved += SPARE
    assert not fresh.needs_numbers
    fresh.not_reserved()
    assert fresh.needs_numbers


def test_a_number_that_was_not_reserved_is_not_told() -> None:
    """What has a number that the next daemon might give away again waits until it is reserved."""
    session = Session("0" * 32, "anna", "test")
    session.tell(session.jobs.setdefault("a", Job(session, Submit("a", REQUEST))), Accepted("a", 0))
    assert session.is_held_up
    assert session.after(0) is None
    session.now_reserved(10)
    assert not session.is_held_up
    assert session.after(0) is not None


def test_a_job_knows_its_tiles(session: Session) -> None:
    """Each tile of its pictures once, and all tiles of its results."""
    job = begun(session)
    assert job.tiles == (IMAGE.tiles[0], MASK.tiles[0])
    assert job.result_tiles == frozenset()
    job.results.append(Result("a", 0, 0, IMAGE))
    assert job.result_tiles == {IMAGE.tiles[0]}


def test_what_was_not_accepted_leaves_no_trace(session: Session) -> None:
    """A job that could not be written down is none, and nothing is told of it."""
    job = session.jobs["a"] = Job(session, Submit("a", REQUEST))
    session.tell(job, Accepted("a", 0), safe=False)
    session.take_back(job)
    assert (session.jobs, session.after(0)) == ({}, None)


def test_news_for_nobody_are_dropped(session: Session) -> None:
    """A preview that nobody is there to see does not wait."""
    session.show(Preview("a", 0, 1, 1, 1, b"x", 0.0))
    outbox = Outbox()
    outbox.follow(session, 0)
    assert outbox.take() is None
    session.show(Position("a", 1))
    assert outbox.take() == Position("a", 1)


def test_the_id_of_a_session_is_not_in_the_log(session: Session) -> None:
    """Whoever reads the log cannot take a session over."""
    assert session.id not in repr(session)


def test_a_prompt_is_not_in_the_log(session: Session) -> None:
    """However a job is written into the log, what was asked for is not."""
    job = Job(session, Submit("a", Request("primer", "text_to_image", 8, 8, prompt="xyzzy")))
    assert "xyzzy" not in f"{job!r} {job}"


def test_jobs_that_have_not_ended_are_known(session: Session) -> None:
    """A job counts until its end."""
    first, second = begun(session, "a"), begun(session, "b")
    session.tell(first, Done("a", 1.0))
    assert list(session.unended()) == [second]


def test_a_long_log_loses_the_progress_of_ended_jobs_alone(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever never comes back costs a bounded amount of memory; results and ends stay."""
    monkeypatch.setattr(sessions, "MAX_LOG", 10)
    first, second = begun(session, "a"), begun(session, "b")
    for job in (first, second):
        for step in range(4):
            session.tell(job, Progress(job.id, "denoising", step / 4))
    session.tell(first, Done("a", 1.0))
    left = [type(entry.message).__name__ + entry.job for entry in log_of(session)]
    assert left == ["Accepteda", "Acceptedb", *["Progressb"] * 4, "Donea"]


def test_of_jobs_that_ended_the_first_lose_their_progress_first(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more is dropped than has to be; a job that has nothing left to drop is passed over."""
    monkeypatch.setattr(sessions, "MAX_LOG", 12)
    for name in "abc":
        job = begun(session, name)
        for step in range(3):
            session.tell(job, Progress(name, "denoising", step / 4))
        session.tell(job, Done(name, 1.0))
    left = [type(entry.message).__name__ + entry.job for entry in log_of(session)]
    whole = [[f"Accepted{name}", *[f"Progress{name}"] * 3, f"Done{name}"] for name in "bc"]
    assert left == ["Accepteda", "Donea", *whole[0], *whole[1]]


def test_what_is_acknowledged_is_not_told_again(session: Session) -> None:
    """Of jobs whose messages lie between one another, each is forgotten alone, and with all that is its own."""
    jobs = [begun(session, name) for name in "abc"]
    for fraction in (0.0, 0.5):
        for job in jobs:
            session.tell(job, Progress(job.id, "denoising", fraction))
    session.tell(jobs[1], Done("b", 1.0))
    session.forget(jobs[1])
    assert [entry.seq for entry in log_of(session)] == [1, 3, 4, 6, 7, 9]
    session.forget(jobs[1])
    session.tell(jobs[2], Done("c", 1.0))
    session.forget(jobs[2])
    assert [entry.seq for entry in log_of(session)] == [1, 4, 7]


def test_what_nobody_acknowledges_makes_nothing_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling of a job, following it and forgetting it costs the same beside ten times as many that wait."""
    monkeypatch.setattr(sessions, "MAX_LOG", 100)

    def seconds(waiting: int) -> float:
        session = numbered(Session("0" * 32, "anna", "test"))
        for number in range(waiting):
            session.tell(begun(session, f"old{number}"), Done(f"old{number}", 1.0))
        times = []
        for _ in range(9):
            begin = time.thread_time()
            job = begun(session, "new")
            for step in range(20):
                session.after(session.tell(job, Progress("new", "denoising", step / 20)).seq - 1)
            session.tell(job, Done("new", 1.0))
            session.forget(job)
            session.forget(session.jobs[f"old{len(times)}"])
            times.append(time.thread_time() - begin)
        return min(times)

    assert seconds(3000) < 5 * seconds(300)


def log_of(session: Session) -> list[Entry]:
    """All that could be told."""
    entries, seq = [], 0
    while (entry := session.after(seq)) is not None:
        entries.append(entry)
        seq = entry.seq
    return entries


class Resuming(RuleBasedStateMachine):
    """A client that comes and goes hears all that concerns it once, in order, whatever waits to be written down."""

    @initialize()
    def start(self) -> None:
        self.session = numbered(Session("0" * 32, "anna", "test"))
        self.unsafe: list[Entry] = []
        self.told: list[Record] = []
        self.heard: list[Record] = []
        self.outbox: Outbox | None = None
        self.acknowledged: set[str] = set()
        self.count = 0

    @rule(safe=st.booleans())
    def submit(self, safe: bool) -> None:
        self.count += 1
        job = Job(self.session, Submit(f"job{self.count}", REQUEST))
        self.session.jobs[job.id] = job
        self.tell(job, Accepted(job.id, 0), safe)

    @rule(data=st.data(), safe=st.booleans(), end=st.booleans())
    def go_on(self, data: st.DataObject, safe: bool, end: bool) -> None:
        running = list(self.session.unended())
        if running:
            job = data.draw(st.sampled_from(running))
            self.tell(job, Done(job.id, 1.0) if end else Started(job.id, job.state.attempt + 1), safe)

    def tell(self, job: Job, message: Record, safe: bool) -> None:
        entry = self.session.tell(job, message, safe=safe)
        self.told.append(entry.message)
        if not safe:
            self.unsafe.append(entry)

    @precondition(lambda self: self.unsafe)
    @rule(data=st.data())
    def written(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.unsafe))
        self.unsafe.remove(entry)
        self.session.now_safe(entry)

    @rule(at_most=st.integers(0, 5))
    def read(self, at_most: int) -> None:
        for _ in range(at_most):
            message = self.outbox.take() if self.outbox is not None else None
            if message is not None:
                assert isinstance(message, Record)
                self.heard.append(message)

    @rule()
    def come_back(self) -> None:
        last = max((message.seq for message in self.heard), default=0)  # type: ignore[attr-defined]
        self.outbox = Outbox()
        self.outbox.follow(self.session, last)

    @rule()
    def go(self) -> None:
        self.session.outbox = self.outbox = None

    @rule()
    def acknowledge(self) -> None:
        for message in self.heard:
            job = self.session.jobs.get(message.job)  # type: ignore[attr-defined]
            if isinstance(message, TERMINAL) and job is not None:
                self.session.forget(job)

    @invariant()
    def nothing_is_lost_or_told_twice(self) -> None:
        assert self.heard == self.told[: len(self.heard)]

    def teardown(self) -> None:
        for entry in self.unsafe:
            self.session.now_safe(entry)
        self.come_back()
        self.read(10_000)
        assert self.heard == self.told


TestResuming = Resuming.TestCase
TestResuming.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_session_without_a_log_is_restored_as_it_was(session: Session) -> None:
    """Nothing was told that was not acknowledged, and the numbers go on."""
    session.restore([])
    assert session.after(0) is None
    assert session.tell(begun(session), Started("a", 1)).seq == 2


def test_a_restored_session_tells_what_it_had(session: Session) -> None:
    """In order and under the same numbers, which go on above them."""
    entries = [Entry(3, "a", Accepted("a", 0, seq=3)), Entry(7, "a", Done("a", 1.0, seq=7))]
    restored = Session("0" * 32, "anna", "test")
    restored.restore(entries)
    assert log_of(restored) == entries
    assert numbered(restored).tell(begun(restored, "b"), Started("b", 1)).seq == 9
