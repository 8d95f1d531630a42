"""What the journal holds, as values, and how it says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Trouble = Literal["journal_full", "journal_unavailable"]


class JournalError(Exception):
    """The journal did not take an operation; what it held before is as it was.

    `code` is a code of the protocol's error table, `detail` a few words for it, without paths.
    """

    def __init__(self, code: Trouble, detail: str) -> None:
        super().__init__(code, detail)
        self.code: Trouble = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class NotInJournal(JournalError):
    """The session or the job that an operation names is not there.

    That happens to a running daemon when the journal could not be read when it was opened, or had to begin anew: what
    is opened and accepted from then on is kept, what was before is not.
    """

    def __init__(self) -> None:
        super().__init__("journal_unavailable", "it does not hold this session or job")


class Contradiction(Exception):
    """The operation contradicts what the journal holds: a second end of a job, or a sequence number used twice."""


@dataclass(frozen=True)
class SessionRow:
    """A session. Sequence numbers below `reserved` may have been used."""

    id: str
    owner: str
    client: str
    reserved: int


@dataclass(frozen=True)
class JobRow:
    """An accepted job. `submit` is its message as bytes, `attempts` counts how often it was started.

    It was charged `work` on the `day`, which is written as in "2026-11-23"; both are 0 and empty if an earlier version
    accepted it. `ended` is Unix time in seconds, and None as long as it has no terminal event.
    """

    session: str
    job: str
    submit: bytes
    attempts: int
    work: int
    day: str
    ended: float | None


@dataclass(frozen=True)
class EventRow:
    """One message of a job, as bytes, under its sequence number in the session."""

    session: str
    seq: int
    job: str
    message: bytes


@dataclass(frozen=True)
class Contents:
    """All that a journal holds.

    Sessions are in the order in which they were opened, jobs in that in which they were accepted, events in that of
    session and sequence number. `usage` maps an owner and a day, as in "2026-11-23", to the work charged.
    """

    sessions: tuple[SessionRow, ...] = ()
    jobs: tuple[JobRow, ...] = ()
    events: tuple[EventRow, ...] = ()
    usage: Mapping[tuple[str, str], int] = field(default_factory=dict)
