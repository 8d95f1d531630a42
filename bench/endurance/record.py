"""A client's own record of what it did and heard: lines that are only ever added, which survive that it is killed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ENDS = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Entry:
    """One thing that happened in one life of a client.

    `what` is the name of a message ("accepted", "done", …) or one of: "born", "session", "lost" (a connection),
    "submit", "picture", "refused", "error", "broken" (the server broke the language), "finished". `seq` is the
    message's number in its session, 0 if the client concluded it by itself; `detail` a code, hash or reason; `number`
    a picture's index or an attempt.
    """

    life: int
    what: str
    job: str = ""
    seq: int = 0
    session: str = ""
    detail: str = ""
    number: int = 0


class Record:
    """The file of one client, which one process writes at a time."""

    def __init__(self, path: Path) -> None:
        """Take up the record in `path`, or begin it; another life of the client begins."""
        earlier = read(path)
        self.ended = {entry.job for entry in earlier if entry.what in ENDS}
        self.session = next((entry.session for entry in reversed(earlier) if entry.what == "session"), None)
        self.life = 1 + max((entry.life for entry in earlier), default=0)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if earlier and not path.read_bytes().endswith(b"\n"):
            os.write(self._file, b"\n")  # the last life ended inside a line
        self.write("born")

    def write(
        self, what: str, job: str = "", *, seq: int = 0, session: str = "", detail: str = "", number: int = 0
    ) -> None:
        """Add an entry; it outlives this process as soon as this returns."""
        entry = Entry(self.life, what, job, seq, session, detail, number)
        os.write(self._file, json.dumps(asdict(entry)).encode() + b"\n")
        if what in ENDS:
            self.ended.add(job)


class Follower:
    """Counts the ends in a record that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._ended: set[str] = set()

    def ended(self) -> int:
        """How many jobs have ended by now."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._read += len(whole + newline)
            self._ended |= {entry.job for entry in _entries(whole.splitlines()) if entry.what in ENDS}
        return len(self._ended)


def read(path: Path) -> list[Entry]:
    """All entries of a record; none if there is none. A line in which a life ended is left out."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return list(_entries(lines))


def _entries(lines: list[bytes]) -> Iterator[Entry]:
    for line in lines:
        try:
            yield Entry(**json.loads(line))
        except ValueError:
            continue
