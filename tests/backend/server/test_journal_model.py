"""The journal against a model of plain dicts: random operations, restarts among them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from underpaint_backend.server.journal import (
    Contents,
    Contradiction,
    EventRow,
    JobRow,
    Journal,
    NotInJournal,
    SessionRow,
)

SESSIONS = st.sampled_from(["s", "t", "ü"])
JOBS = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 30)
BYTES = st.binary(max_size=20)
TIMES = st.floats(0, 1e10)
OWNERS = st.sampled_from(["ada", "bob"])
DAYS = st.sampled_from(["2026-11-21", "2026-11-22", "2026-11-23"])
WORK = st.integers(0, 1000)

Key = tuple[str, str]
Result = type[Exception] | None


@dataclass
class Model:
    """What the journal should hold. Each method returns the class of the error that is expected."""

    sessions: dict[str, SessionRow] = field(default_factory=dict)
    jobs: dict[Key, JobRow] = field(default_factory=dict)
    events: dict[tuple[str, int], EventRow] = field(default_factory=dict)
    usage: dict[Key, int] = field(default_factory=dict)

    def contents(self) -> Contents:
        events = tuple(self.events[key] for key in sorted(self.events))
        return Contents(tuple(self.sessions.values()), tuple(self.jobs.values()), events, self.usage)

    def open_session(self, row: SessionRow) -> Result:
        old = self.sessions.get(row.id, row)
        self.sessions[row.id] = replace(old, reserved=max(old.reserved, row.reserved))
        return None

    def reserve(self, session: str, reserved: int) -> Result:
        if session not in self.sessions:
            return NotInJournal
        old = self.sessions[session]
        self.sessions[session] = replace(old, reserved=max(old.reserved, reserved))
        return None

    def accept(self, job: JobRow, event: EventRow, owner: str) -> Result:
        if (job.session, job.job) in self.jobs:
            return None
        if job.session not in self.sessions:
            return NotInJournal
        if (event.session, event.seq) in self.events:
            return Contradiction
        self.jobs[job.session, job.job] = job
        self.events[event.session, event.seq] = event
        self.usage[owner, job.day] = self.usage.get((owner, job.day), 0) + job.work
        return None

    def start(self, session: str, job: str, attempts: int) -> Result:
        if (session, job) not in self.jobs:
            return NotInJournal
        self.jobs[session, job] = replace(self.jobs[session, job], attempts=attempts)
        return None

    def append(self, event: EventRow) -> Result:
        if (event.session, event.seq) in self.events:
            return Contradiction
        if (event.session, event.job) not in self.jobs:
            return NotInJournal
        self.events[event.session, event.seq] = event
        return None

    def end(self, event: EventRow, ended: float, refund: int) -> Result:
        job = self.jobs.get((event.session, event.job))
        if job is not None and job.ended is not None:
            return Contradiction
        error = self.append(event)
        if error is None and job is not None:
            self.jobs[event.session, event.job] = replace(job, ended=ended)
            self.refund(self.sessions[event.session].owner, job.day, refund)
        return error

    def refund(self, owner: str, day: str, work: int) -> Result:
        if (owner, day) in self.usage:
            self.usage[owner, day] = max(0, self.usage[owner, day] - work)
        return None

    def forget(self, session: str, job: str) -> Result:
        self.jobs.pop((session, job), None)
        self.events = {key: event for key, event in self.events.items() if (event.session, event.job) != (session, job)}
        return None

    def forget_session(self, session: str) -> Result:
        self.sessions.pop(session, None)
        self.jobs = {key: job for key, job in self.jobs.items() if job.session != session}
        self.events = {key: event for key, event in self.events.items() if event.session != session}
        return None

    def forget_usage_before(self, day: str) -> Result:
        self.usage = {key: work for key, work in self.usage.items() if key[1] >= day}
        return None


class JournalMachine(RuleBasedStateMachine):
    """Operations are called in bursts, so that groups hold good and bad ones; a restart compares all that is kept."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name, "journal.sqlite")
        self._runner = asyncio.Runner()
        self._model = Model()
        self._calls: list[tuple[str, tuple[object, ...]]] = []
        self._journal = Journal(self._path)
        self._runner.run(self._journal.open())

    def _call(self, name: str, *values: object) -> None:
        self._calls.append((name, values))

    @rule(session=SESSIONS, owner=OWNERS, reserved=NUMBERS)
    def open_session(self, session: str, owner: str, reserved: int) -> None:
        self._call("open_session", SessionRow(session, owner, "krita", reserved))

    @rule(session=SESSIONS, reserved=NUMBERS)
    def reserve(self, session: str, reserved: int) -> None:
        self._call("reserve", session, reserved)

    @rule(session=SESSIONS, job=JOBS, seq=NUMBERS, submit=BYTES, owner=OWNERS, day=DAYS, work=WORK)
    def accept(self, session: str, job: str, seq: int, submit: bytes, owner: str, day: str, work: int) -> None:
        row = JobRow(session, job, submit, 0, work, day, None)
        self._call("accept", row, EventRow(session, seq, job, submit), owner)

    @rule(session=SESSIONS, job=JOBS, attempts=NUMBERS)
    def start(self, session: str, job: str, attempts: int) -> None:
        self._call("start", session, job, attempts)

    @rule(session=SESSIONS, job=JOBS, seq=NUMBERS, message=BYTES)
    def append(self, session: str, job: str, seq: int, message: bytes) -> None:
        self._call("append", EventRow(session, seq, job, message))

    @rule(session=SESSIONS, job=JOBS, seq=NUMBERS, message=BYTES, when=TIMES, refund=WORK)
    def end(self, session: str, job: str, seq: int, message: bytes, when: float, refund: int) -> None:
        self._call("end", EventRow(session, seq, job, message), when, refund)

    @rule(owner=OWNERS, day=DAYS, work=WORK)
    def refund(self, owner: str, day: str, work: int) -> None:
        self._call("refund", owner, day, work)

    @rule(session=SESSIONS, job=JOBS)
    def forget(self, session: str, job: str) -> None:
        self._call("forget", session, job)

    @rule(session=SESSIONS)
    def forget_session(self, session: str) -> None:
        self._call("forget_session", session)

    @rule(day=DAYS)
    def forget_usage_before(self, day: str) -> None:
        self._call("forget_usage_before", day)

    @precondition(lambda self: self._calls)
    @rule()
    def await_all(self) -> None:
        """Every call ends as the model says."""
        calls, self._calls = self._calls, []
        expected = [getattr(self._model, name)(*values) for name, values in calls]
        assert self._runner.run(self._outcomes(calls)) == expected

    @rule()
    def restart(self) -> None:
        """The next daemon finds what the model holds."""
        if self._calls:
            self.await_all()
        self._runner.run(self._journal.close())
        self._journal = Journal(self._path)
        assert self._runner.run(self._journal.open()) == self._model.contents()

    @invariant()
    def bursts_are_short(self) -> None:
        if len(self._calls) >= 8:
            self.await_all()

    def teardown(self) -> None:
        self.restart()
        self._runner.run(self._journal.close())
        self._runner.close()
        self._folder.cleanup()

    async def _outcomes(self, calls: list[tuple[str, tuple[object, ...]]]) -> list[Result]:
        writes: list[Awaitable[None]] = [getattr(self._journal, name)(*values) for name, values in calls]
        results = await asyncio.gather(*writes, return_exceptions=True)
        return [None if result is None else type(result) for result in results]  # type: ignore[misc]


TestJournalAgainstTheModel = JournalMachine.TestCase
TestJournalAgainstTheModel.settings = settings(max_examples=60, stateful_step_count=40)
