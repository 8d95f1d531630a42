"""What the daemon knows of each client, beyond its connections: sessions, their jobs, and what is to be told of them.

Nothing here waits, reads a clock or touches a file or socket; whoever has those brings what is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from underpaint_protocol.fields import Record
from underpaint_protocol.jobs import JobState
from underpaint_protocol.messages import STATE, TERMINAL, Result, Submit

from .history import Entry as Entry
from .history import History

if TYPE_CHECKING:
    from .outbox import Outbox

R = TypeVar("R", bound=Record)

SPARE = 512
"""Sequence numbers that are reserved in the journal before they are needed."""

MAX_LOG = 20_000
"""State messages that one session keeps; beyond it, the progress of jobs that have ended is dropped.

What is left is bounded by the jobs of a session: each has one end and a result for each of its pictures.
"""


@dataclass(eq=False, repr=False)
class Job:
    """One job, from `submit` until its client has acknowledged it."""

    session: Session
    submit: Submit
    work: int = 0
    """What it costs of its owner's allowance, in megapixel steps."""
    day: str = ""
    """The day on which that was charged, as in "2026-11-23"."""
    attempts: int = 0
    state: JobState = field(default_factory=JobState)
    results: list[Result] = field(default_factory=list)
    position: int = -1
    """The place in the queue that the client knows of."""
    cancelled: bool = False
    """Whether somebody asked to stop it."""
    ended_at: float | None = None
    """When it ended, on the monotonic clock, in seconds."""
    request_pins: Sequence[bytes] = ()
    """Tiles that the store keeps for its worker."""
    result_pins: set[bytes] = field(default_factory=set)
    """Tiles that the store keeps for its client."""
    slots_of_results: int = 0
    """Slots of the store that these take, at most."""
    slots_of_all_results: int = 0
    """Slots that they will take once all its pictures are there."""
    size: int = 0
    """Bytes that its request takes in the journal."""

    def __repr__(self) -> str:
        return f"<job {self.id} of {self.session!r}>"  # its prompt is nobody's business

    @property
    def id(self) -> str:
        return self.submit.job

    @property
    def slots_to_come(self) -> int:
        """Slots that its pictures will still take."""
        return max(0, self.slots_of_all_results - self.slots_of_results)

    @property
    def tiles(self) -> Sequence[bytes]:
        """The tiles that its request names, each once."""
        return tuple(dict.fromkeys(name for image in self.submit.request.images for name in image.tiles))

    @property
    def result_tiles(self) -> frozenset[bytes]:
        """The tiles of all its results."""
        return frozenset(name for result in self.results for name in result.image.tiles)


class Session:
    """One client's conversation, which outlives its connections."""

    def __init__(self, name: str, owner: str, client: str, reserved: int = 1) -> None:
        self.id = name
        self.owner = owner
        self.client = client
        self.jobs: dict[str, Job] = {}
        self.outbox: Outbox | None = None
        """Where its messages go while a connection has it."""
        self.left_at = 0.0
        """When its last connection went, on the monotonic clock, in seconds."""
        self.stored = False
        """Whether the journal knows it."""
        self.reserved = reserved
        """Numbers below this were asked for."""
        self._durable = reserved
        self._next = reserved
        self._log = History()

    def __repr__(self) -> str:
        return f"<session {self.id[:6]}… of {self.owner}>"  # the whole id would let whoever reads the log resume it

    @property
    def needs_numbers(self) -> bool:
        """Whether it is time to reserve more."""
        return self._next + SPARE > self.reserved

    @property
    def is_held_up(self) -> bool:
        """Whether something cannot be told because its number was not reserved."""
        return self._log.newest >= self._durable

    def now_reserved(self, below: int) -> None:
        """Numbers `below` this are written down, and may be told; a later daemon begins above them."""
        self._durable = max(self._durable, below)
        self.reserved = max(self.reserved, below)
        self._wake()

    def not_reserved(self) -> None:
        """More numbers could not be written down; they are to be asked for again."""
        self.reserved = self._durable

    def restore(self, entries: Sequence[Entry]) -> None:
        """Take back what the journal kept, in order."""
        for entry in entries:
            self._log.append(entry)
        if entries:
            self._next = max(self._next, self._log.newest + 1)
            self.now_reserved(self._next)

    def tell(self, job: Job, message: Record, *, safe: bool = True) -> Entry:
        """Number a state message of `job` and queue it.

        Raises `OutOfOrder` if the life of the job does not allow it; nothing is queued then.
        """
        assert isinstance(message, STATE)
        job.state.apply(message)
        entry = Entry(self._next, job.id, replace(message, seq=self._next), safe)
        self._next += 1
        self._log.append(entry)
        if isinstance(message, TERMINAL) and self.outbox is not None:
            self.outbox.drop_slots(job.id)
        self._log.trim(MAX_LOG)
        self._wake()
        return entry

    def now_safe(self, entry: Entry) -> None:
        """`entry` was written down."""
        entry.safe = True
        self._wake()

    def show(self, message: Record) -> None:
        """Pass on a message of which only the newest counts, if anybody is there."""
        if self.outbox is not None:
            self.outbox.show(message)

    def after(self, seq: int) -> Entry | None:
        """The next entry with a number above `seq`; None if there is none, or it is not safe yet."""
        entry = self._log.after(seq)
        return entry if entry is not None and entry.safe and entry.seq < self._durable else None

    def forget(self, job: Job) -> None:
        """Nobody needs to hear of this job any more."""
        self.jobs.pop(job.id, None)
        self._log.forget(job.id)

    def take_back(self, job: Job) -> None:
        """The job was not accepted after all."""
        self.forget(job)
        self._wake()

    def unended(self) -> Iterator[Job]:
        """Its jobs that wait or run."""
        return (job for job in self.jobs.values() if not job.state.ended)

    def _wake(self) -> None:
        if self.outbox is not None:
            self.outbox.wake()
