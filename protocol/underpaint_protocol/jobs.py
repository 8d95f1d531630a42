"""The life of one job, as both ends see it: fractions that never fall and exactly one end."""

from __future__ import annotations

from .exceptions import OutOfOrder
from .fields import Record
from .messages import TERMINAL, Accepted, Progress, Started


class JobState:
    """Where one job stands, moved on by its messages."""

    def __init__(self) -> None:
        self.accepted = False
        self.ended = False
        self.attempt = 0
        self.fraction = 0.0

    def apply(self, message: Record) -> None:
        """Move on by one message of the server.

        Raises `OutOfOrder` if the message may not come now: anything after the end, anything before `accepted`, an
        attempt that lies before the last one, or a fraction that falls within one. The same attempt may begin twice:
        a daemon that was killed as it began does not count it.
        """
        if self.ended:
            raise OutOfOrder("a message came after the end of its job")
        if isinstance(message, Accepted):
            if self.accepted:
                raise OutOfOrder("the job was accepted twice")
            self.accepted = True
            return
        if not self.accepted:
            raise OutOfOrder("a message came before its job was accepted")
        if isinstance(message, Started):
            self._start(message.attempt)
        elif isinstance(message, Progress):
            self._progress(message.fraction)
        self.ended = isinstance(message, TERMINAL)

    def _start(self, attempt: int) -> None:
        if attempt < self.attempt:
            raise OutOfOrder(f"attempt {attempt} came after attempt {self.attempt}")
        self.attempt, self.fraction = attempt, 0.0

    def _progress(self, fraction: float) -> None:
        if fraction < self.fraction:
            raise OutOfOrder(f"the fraction fell from {self.fraction} to {fraction}")
        self.fraction = fraction
