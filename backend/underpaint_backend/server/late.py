"""What could not be written into the journal when it happened: it is written later, in order, and told then.

What were told and not written would happen once more if the daemon were killed.
"""

from __future__ import annotations

import logging
import time
from asyncio import Future, Lock
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .journal import Contradiction, JournalError, NotInJournal
from .sessions import Entry, Job

log = logging.getLogger(__name__)

TOLD_ANYWAY = 30.0
"""Seconds after which something is told that could not be written down."""


@dataclass(frozen=True, eq=False)
class _Late:
    """Something of a job that is to be written down, and the message that waits for it."""

    job: Job
    write: Callable[[], Future[None]]
    entry: Entry | None = None
    since: float = field(default_factory=time.monotonic)

    def tell(self) -> None:
        """Let the message go."""
        if self.entry is not None:
            self.job.session.now_safe(self.entry)

    async def is_written(self, level: int = logging.DEBUG) -> bool:
        """Write it down; false if the journal does not take it now, which is logged at this level."""
        try:
            await self.write()
        except (Contradiction, NotInJournal) as error:
            log.error("the job %s could not be written down: %s", self.job.id, error)
        except JournalError as error:
            log.log(level, "the job %s will be written down later: %s", self.job.id, error)
            return False
        return True


class LateWrites:
    """All that is yet to be written down. Everything is called on the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[_Late] = deque()
        self._jobs: Counter[Job] = Counter()
        """Of each job, how much waits."""
        self._catching_up = Lock()

    def has(self, job: Job) -> bool:
        """Whether something of this job waits."""
        return job in self._jobs

    def has_namesake(self, job: Job) -> bool:
        """Whether something waits of an earlier job of the same session with the same id."""
        return any(late.session is job.session and late.id == job.id for late in self._jobs)

    async def write(self, job: Job, write: Callable[[], Future[None]], entry: Entry | None = None) -> None:
        """Write something down and tell it then, or later if that fails, or if something of the job waits already."""
        late = _Late(job, write, entry)
        if not self.has(job) and await late.is_written(logging.ERROR):
            late.tell()
        else:
            self._append(late)

    def append(self, job: Job, write: Callable[[], Future[None]]) -> None:
        """Write something down later."""
        self._append(_Late(job, write))

    def forget(self, job: Job) -> None:
        """Nothing of this job needs to be written down any more."""
        if self._jobs.pop(job, 0):
            self._waiting = deque(late for late in self._waiting if late.job is not job)

    async def catch_up(self) -> None:
        """Write down what waits, as far as the journal takes it, and tell it; tell anyway what waits for too long."""
        async with self._catching_up:  # or two would write the same thing
            while self._waiting and await (late := self._waiting[0]).is_written():
                late.tell()
                if self._waiting and self._waiting[0] is late:
                    self._pop()
        self._tell_what_waits_for_too_long()

    def _tell_what_waits_for_too_long(self) -> None:
        for late in self._waiting:
            if time.monotonic() - late.since > TOLD_ANYWAY:
                late.tell()

    def _pop(self) -> None:
        late = self._waiting.popleft()
        self._jobs[late.job] -= 1
        if not self._jobs[late.job]:
            del self._jobs[late.job]

    def _append(self, late: _Late) -> None:
        self._waiting.append(late)
        self._jobs[late.job] += 1
