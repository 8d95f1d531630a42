"""How far a job is: one fraction over all of its phases."""

from __future__ import annotations

from threading import Event

from underpaint_protocol.messages import Progress

from ..engine.cancel import check
from .inbox import Job
from .outbox import Outbox

_SPANS = {
    "loading": (0.0, 0.1),
    "preparing": (0.1, 0.12),
    "encoding": (0.12, 0.2),
    "denoising": (0.2, 0.9),
    "decoding": (0.9, 0.97),
    "compositing": (0.97, 1.0),
}
"""Where the fraction is at the beginning and at the end of each phase."""


class JobProgress:
    """The progress of one job, as the server hears of it. Each report is also a place at which the job can stop."""

    def __init__(self, job: Job, outbox: Outbox) -> None:
        self._job = job.submit.job
        self._cancelled: Event = job.cancelled
        self._outbox = outbox
        self._reached = 0.0

    def report(self, phase: str, done: float = 0.0, step: int = 0, steps: int = 0) -> None:
        """Tell that the job is in `phase`, of which the fraction `done` is behind it.

        Raises `Cancelled` if the job is to stop.
        """
        check(self._cancelled)
        begin, end = _SPANS[phase]
        self._reached = max(self._reached, begin + (end - begin) * done)
        self._outbox.send(Progress(self._job, phase, self._reached, step, steps))
