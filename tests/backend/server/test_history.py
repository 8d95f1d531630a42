"""A history against a plain list of all that was told, in whatever order things happen."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from underpaint_backend.server.history import Entry, History
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import TERMINAL, Accepted, Cancelled, Done, Progress, Result, Started

IMAGE, _ = image_of(1, 1, 4, bytes(4))
KEPT = (Accepted, Result, *TERMINAL)

gaps = st.integers(1, 3)
progress = st.lists(st.sampled_from((Started("-", 1), Progress("-", "denoising", 0.5), Result("-", 0, 0, IMAGE))))


class Telling(RuleBasedStateMachine):
    """Jobs begin, go on, end and are forgotten; of those that have ended, progress may be taken out."""

    @initialize()
    def start(self) -> None:
        self.history = History()
        self.entries: list[Entry] = []
        self.running: list[str] = []
        self.ended: list[str] = []
        self.count = 0

    def add(self, job: str, message: Record, gap: int = 1) -> None:
        newest = self.entries[-1].seq if self.entries else 0
        entry = Entry(max(newest, self.history.newest) + gap, job, message)
        self.history.append(entry)
        self.entries.append(entry)

    @rule(gap=gaps)
    def begin(self, gap: int) -> None:
        self.count += 1
        self.running.append(f"job{self.count}")
        self.add(self.running[-1], Accepted("-", 0), gap)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), messages=progress, gap=gaps)
    def go_on(self, data: st.DataObject, messages: list[Record], gap: int) -> None:
        job = data.draw(st.sampled_from(self.running))
        for message in messages:
            self.add(job, message, gap)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from((Done("-", 1.0), Cancelled("-"))))
    def end(self, data: st.DataObject, end: Done | Cancelled) -> None:
        job = data.draw(st.sampled_from(self.running))
        self.running.remove(job)
        self.ended.append(job)
        self.add(job, end)

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from([*self.running, *self.ended, "unknown"]))
        self.history.forget(job)
        self.entries = [entry for entry in self.entries if entry.job != job]
        self.running = [other for other in self.running if other != job]
        self.ended = [other for other in self.ended if other != job]

    @rule(most=st.integers(0, 20))
    def trim(self, most: int) -> None:
        self.history.trim(most)
        for job in self.ended:
            if len(self.entries) > most:
                self.entries = [entry for entry in self.entries if entry.job != job or isinstance(entry.message, KEPT)]

    @invariant()
    def all_are_there_in_order(self) -> None:
        assert len(self.history) == len(self.entries)
        assert self.history.newest == (self.entries[-1].seq if self.entries else 0)
        found, seq = [], 0
        while (entry := self.history.after(seq)) is not None:
            found.append(entry)
            seq = entry.seq
        assert found == self.entries

    @rule(seq=st.integers(0, 100))
    def look(self, seq: int) -> None:
        assert self.history.after(seq) == next((entry for entry in self.entries if entry.seq > seq), None)


TestTelling = Telling.TestCase
TestTelling.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
