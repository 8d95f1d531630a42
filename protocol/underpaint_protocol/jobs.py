"""The life of one job, as both ends see it: fractions that never fall and exactly one end."""

from __future__ import annotations

from .exceptions import OutOfOrder
from .fields import Record
from .messages import TERMINAL, Accepted, Progress


class JobState:
    """Where one job stands, moved on by its messages."""

    def __init__(self) -> None:
        self.accepted = False
        self.ended = False
        self.fraction = 0.0

    def apply(self, message: Record) -> None:
        """Move on by one message of the server.

        Raises `OutOfOrder` if the message may not come now: anything after the end, anything before `accepted`, or
        a fraction that falls.
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
        if isinstance(message, Progress):
            if message.fraction < self.fraction:
                raise OutOfOrder(f"the fraction fell from {self.fraction} to {message.fraction}")
            self.fraction = message.fraction
        self.ended = isinstance(message, TERMINAL)
