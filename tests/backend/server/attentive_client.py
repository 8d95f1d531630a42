"""A client without a socket, which checks all that it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from underpaint_backend.server.outbox import Outbox
from underpaint_protocol.fields import Record
from underpaint_protocol.jobs import JobState
from underpaint_protocol.messages import STATE, TERMINAL, Result


@dataclass
class Client:
    """Somebody who submits, listens, goes away and comes back, and checks all that is told."""

    owner: str
    session: str = ""
    outbox: Outbox | None = None
    heard: int = 0
    """The last number."""
    accepted: set[str] = field(default_factory=set)
    """What the server has answered for and this client has not acknowledged."""
    over: set[str] = field(default_factory=set)
    """What it has acknowledged, or has to begin anew."""
    states: dict[str, JobState] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    """The number of the end of each job."""
    results: dict[tuple[str, int], Result] = field(default_factory=dict)

    def listen(self, most: int) -> None:
        """Take up to so many messages."""
        for _ in range(most):
            message = self.outbox.take() if self.outbox is not None else None
            if message is None:
                return
            assert isinstance(message, Record)
            if isinstance(message, STATE):
                self._follow(message)
            else:
                assert message.job not in self.ends, "a preview or a place came after the end"  # type: ignore[attr-defined]

    def _follow(self, message: Any) -> None:
        assert message.seq > self.heard, "a number was told twice"
        self.heard = message.seq
        self.accepted.add(message.job)
        assert message.job not in self.ends, "a message came after the end"
        self.states.setdefault(message.job, JobState()).apply(message)
        if isinstance(message, Result):
            assert (message.job, message.index) not in self.results, "a picture was told twice"
            self.results[message.job, message.index] = message
        elif isinstance(message, TERMINAL):
            self.ends[message.job] = message.seq

    def forget_what_was_lost(self, numbers: set[int]) -> bool:
        """A daemon was killed that had written down `numbers`; whether what was told went with it."""
        lost = [job for job, seq in self.ends.items() if seq not in numbers and job not in self.over]
        for job in lost:
            del self.ends[job]
            self.states[job].ended = False
        gone = [key for key, result in self.results.items() if result.seq not in numbers and key[0] not in self.over]
        for key in gone:
            del self.results[key]
        return bool(lost or gone)

    @property
    def wanted(self) -> list[bytes]:
        """Tiles that this client was told of and may still fetch."""
        return [
            name for (job, _), result in self.results.items() if job not in self.over for name in result.image.tiles
        ]
