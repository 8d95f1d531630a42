"""What is to be sent on one connection, in four lanes.

Answers go first. Then the state of the session's jobs, in order and without gaps: these are read from the session's
log, so they wait there and not here. Then the newest previews, queue places and news of models on their way, one slot
each. Last come the tiles
that the client fetches, which are read from the disk one at a time, when the line is free for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Missing, Preview, Pulling

from .sessions import Session

MAX_ANSWERS = 256
"""Answers that may wait; a client that asks for more is not read until it has taken some."""
MAX_NAMES = 65_536
"""Names of tiles in the answers that may wait: 1 MiB on the wire, and some of it more in memory."""
MAX_TILES = 16_384
"""Tiles that may wait to be sent: 4 GiB of pixels, of which only the names lie here."""


@dataclass(frozen=True)
class TileWanted:
    """A tile of a job's results that is to be read and sent."""

    name: bytes
    job: str


class Outbox:
    """The way out of one connection."""

    def __init__(self, taken_over: Callable[[], None] = lambda: None) -> None:
        """`taken_over` is called when another connection goes on with this one's session."""
        self._taken_over = taken_over
        self._answers: deque[Record] = deque()
        self._names = 0
        self._slots: dict[tuple[str, str, int], Record] = {}
        self._tiles: deque[TileWanted] = deque()
        self._session: Session | None = None
        self._told = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """Nobody takes anything any more: what waits is dropped, and nobody waits for room."""
        self._closed = True
        self._drop_all()
        self._room.set()
        self._idle.set()

    def follow(self, session: Session, last_seq: int) -> None:
        """Tell what `session` has to say after `last_seq`, from now on; nobody else is told any more."""
        other, session.outbox = session.outbox, self
        self._session, self._told = session, last_seq
        if other is not None and other is not self:
            other.lose()
        self.wake()

    def lose(self) -> None:
        """Another connection follows the session now."""
        self._session = None
        self._slots.clear()
        self._tiles.clear()
        self._taken_over()

    def put(self, answer: Record) -> None:
        """Queue an answer, or news that concern no job."""
        self._answers.append(answer)
        self._names += _names_in(answer)
        self.wake()

    def show(self, message: Record) -> None:
        """Put a preview, a queue place or news of a model into its slot, where it takes the place of an older one."""
        if isinstance(message, Pulling):
            self._slots["", message.model, 0] = message  # of no job, so that the end of none takes it away
        else:
            name: str = message.job  # type: ignore[attr-defined]
            index = message.index if isinstance(message, Preview) else 0
            self._slots[name, type(message).__name__, index] = message
        self.wake()

    def drop_slots(self, job: str) -> None:
        """The job ended: no preview of it is sent any more."""
        self._slots = {key: slot for key, slot in self._slots.items() if key[0] != job}

    def send_tiles(self, job: str, names: Iterable[bytes]) -> None:
        """Queue tiles of the job's results."""
        self._tiles.extend(TileWanted(name, job) for name in names)
        self.wake()

    def wake(self) -> None:
        """There may be something to send."""
        if self._closed:
            return self._drop_all()
        self._filled.set()
        self._idle.clear()
        if self._is_full():
            self._room.clear()
        return None

    async def room(self) -> None:
        """Wait until another question of the client can be answered."""
        await self._room.wait()

    async def next(self) -> Record | TileWanted:
        """The next message to send; waits until there is one."""
        while True:
            self._filled.clear()
            message = self.take()
            if not self._is_full():
                self._room.set()
            if message is not None:
                return message
            self._idle.set()
            await self._filled.wait()

    def take(self) -> Record | TileWanted | None:
        """The next message to send, if there is one."""
        if self._answers:
            answer = self._answers.popleft()
            self._names -= _names_in(answer)
            return answer
        entry = self._session.after(self._told) if self._session is not None else None
        if entry is not None:
            self._told = entry.seq
            return entry.message
        if self._slots:
            return self._slots.pop(next(iter(self._slots)))
        return self._tiles.popleft() if self._tiles else None

    async def drained(self) -> None:
        """Wait until everything was taken and whoever took it asked for more."""
        await self._idle.wait()

    def _is_full(self) -> bool:
        return len(self._answers) >= MAX_ANSWERS or self._names >= MAX_NAMES or len(self._tiles) >= MAX_TILES

    def _drop_all(self) -> None:
        self._answers.clear()
        self._names = 0
        self._slots.clear()
        self._tiles.clear()


def _names_in(answer: Record) -> int:
    return len(answer.tiles) if isinstance(answer, Missing) else 0
