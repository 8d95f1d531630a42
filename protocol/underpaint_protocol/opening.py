"""How a connection begins, as the client sees it: a greeting, and which session the connection carries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional, Sequence, Tuple, Union

from .exceptions import OutOfOrder
from .fields import Record
from .messages import Error, Hello, Models, Pulling, Resume, Resumed, Status, Welcome, vocabulary


class Stage(Enum):
    """How far a connection is."""

    APART = "there is none, or it is lost"
    GREETING = "hello is said"
    RESUMING = "welcome came, and the earlier session is asked for"
    READY = "the session is agreed on"


@dataclass(frozen=True)
class Agreed:
    """Both sides know the session now. A `fresh` one is new to the server; else it has `jobs` of it."""

    jobs: Tuple[str, ...]
    fresh: bool


class Opening:
    """From `hello` to the session, once for each connection; the session stays the same where the server knows it."""

    def __init__(self, client: str, encodings: Sequence[str], session: Optional[str]) -> None:
        self.client = client
        self.encodings = tuple(encodings)
        self.session = session
        self.welcome: Optional[Welcome] = None
        self.stage = Stage.APART

    def greet(self) -> Hello:
        """There is a new connection; what is said first."""
        self.stage = Stage.GREETING
        return Hello(self.client, self.encodings)

    def receive(self, message: Record, last_seq: int) -> Union[Agreed, Resume, None]:
        """What follows from a message of the server: a session, a request for the earlier one, or nothing.

        `last_seq` is the highest number that came. Raises `OutOfOrder` if the message may not come now.
        """
        if isinstance(message, Welcome) and self.stage is Stage.GREETING:
            return self._welcomed(message, last_seq)
        if self.stage is Stage.RESUMING:
            if isinstance(message, Resumed) and message.session == self.session:
                return self._agreed(message.jobs, fresh=False)
            if isinstance(message, Error) and message.error.code == "unknown_session":
                assert self.welcome is not None
                self.session = self.welcome.session
                return self._agreed((), fresh=True)
        if isinstance(message, (Error, Status, Models, Pulling)):
            return None
        raise OutOfOrder(f"{vocabulary.name_of(message)} came while the connection was opened")

    def _welcomed(self, welcome: Welcome, last_seq: int) -> Union[Agreed, Resume]:
        self.welcome = welcome
        if self.session is not None:
            self.stage = Stage.RESUMING
            return Resume(self.session, last_seq)
        self.session = welcome.session
        return self._agreed((), fresh=True)

    def _agreed(self, jobs: Tuple[str, ...], *, fresh: bool) -> Agreed:
        self.stage = Stage.READY
        return Agreed(jobs, fresh)
