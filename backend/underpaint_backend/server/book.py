"""The book of all sessions and jobs: what lies in memory, in the journal and in the tile store, kept in step.

A job is written down before it is accepted, and its results and its end before they are told. What is in the book when
the daemon is killed is in it again at the next start.
"""

from __future__ import annotations

import logging
import secrets
import time
from asyncio import Future
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    Accepted,
    Cancelled,
    Done,
    Failed,
    Request,
    Result,
    Started,
    Submit,
    Tile,
    vocabulary,
)

from .farewells import least_wanted_first, leaving_for_room
from .journal import Contradiction, EventRow, JobRow, Journal, JournalError, NotInJournal, SessionRow
from .late import LateWrites
from .pixels import Found, Pixels
from .restoring import restore
from .sessions import SPARE, Entry, Job, Session
from .tiles import DiskFull, StoreFull, TileStore

log = logging.getLogger(__name__)

GRACE = 3600.0
"""Seconds for which nothing is too old after a start, and for which a session without jobs is remembered. Whoever sets
the clock of the machine a year ahead must not lose the pictures that wait."""

MAX_IDLE = 256
"""Sessions of one token to which somebody might come back, though nothing waits in them."""

NUMBERS = 2 * SPARE
"""Sequence numbers that are reserved at once."""


@dataclass(frozen=True)
class Keep:
    """How long results wait for their clients, in seconds, and how much of the journal those of one token take."""

    seconds: float = 24 * 3600.0
    bytes_each: int = 64 << 20


class Book:
    """All sessions and jobs of one daemon. Everything is called on the event loop."""

    def __init__(self, journal: Journal, tiles: TileStore, keep: Keep) -> None:
        self.pixels = Pixels(tiles)
        self.sessions: dict[str, Session] = {}
        self.usage: Counter[tuple[str, str]] = Counter()
        """Work by owner and day, in megapixel steps."""
        self._journal = journal
        self._keep = keep
        self._remembered: Counter[str] = Counter()
        """Bytes that the requests of ended jobs take in the journal, by owner."""
        self._late = LateWrites()
        self._ending: set[Job] = set()
        """Jobs whose end is being written down."""

    # The whole book

    async def open(self) -> list[Job]:
        """Read what an earlier daemon left; returns the jobs that have not ended, in the order of their acceptance.

        Raises `OSError` if the folder of the tiles cannot be used.
        """
        await self.pixels.open()
        contents = await self._journal.open()
        self.usage.update(contents.usage)
        restored = restore(contents, self.pixels, oldest=self._keep.seconds - GRACE)
        self.sessions.update(restored.sessions)
        for row in restored.unknown:
            self._journal.forget(row.session, row.job)
        for job in restored.lost:
            self.usage[job.session.owner, job.day] -= job.work
            self._journal.refund(job.session.owner, job.day, job.work)
            self.forget(job)
        for job in self._ended():
            self._remembered[job.session.owner] += job.size
        return restored.waiting

    async def close(self) -> None:
        """Write down what is on its way, and let go of all files."""
        await self.catch_up()
        await self._journal.close()
        self.pixels.close()

    def expire(self) -> None:
        """Forget results that nobody came for, and sessions that nobody uses; to be called now and then."""
        now = time.monotonic()
        for job in list(self._ended()):
            if job.ended_at is not None and now - job.ended_at > self._keep.seconds:
                log.warning("nobody came for the job %s of %r in time; it is forgotten", job.id, job.session)
                self.forget(job)
        for session in self._idle():
            if now - session.left_at > GRACE:
                self._forget_session(session)
        for idle in self._idle_by_owner().values():
            for session in idle[:-MAX_IDLE]:
                self._forget_session(session)
        self._journal.forget_usage_before(today())

    async def catch_up(self) -> None:
        """Write down what could not be written down when it happened, in order, and tell it; to be called often.

        What waits for too long is told all the same: an artist need not wait for a disk that nobody looks after.
        """
        await self._late.catch_up()
        for session in self.sessions.values():
            if session.is_held_up:
                self._reserve_numbers(session)

    # Sessions

    def new_session(self, owner: str, client: str) -> Session:
        """A session for a client that just greeted."""
        session = Session(secrets.token_hex(16), owner, client)
        self.sessions[session.id] = session
        return session

    def find(self, name: str, owner: str) -> Session | None:
        """The session called `name`, if it belongs to `owner`."""
        session = self.sessions.get(name)
        return session if session is not None and session.owner == owner else None

    def leave(self, session: Session) -> None:
        """The connection that had `session` is gone. A session without jobs and history is nothing to come back to."""
        session.outbox, session.left_at = None, time.monotonic()
        if not session.jobs and not session.stored:
            self.sessions.pop(session.id, None)

    def unended(self, owner: str) -> list[Job]:
        """Jobs of one owner that wait or run."""
        return [job for session in self.sessions.values() if session.owner == owner for job in session.unended()]

    # Room for pixels

    def could_hold(self, found: Found, request: Request) -> bool:
        """Whether the store has room for a request and its pictures, if there were nothing else."""
        return sum(found.needs.values()) + self.pixels.slots_of_results(request) <= self.pixels.slots

    def find_room(
        self, owner: str, found: Found, request: Request, instead_of: Job | None = None
    ) -> Sequence[Job] | None:
        """The ended jobs that will have to go so that a request of `owner` and its pictures have room.

        That is beside all that other jobs need and will need, but for `instead_of`, which ends once this one is
        accepted. Results that nobody came for go if that helps, but not of who takes less than `owner`. None if there
        is no room all the same, or if the jobs of `owner` would leave less to others than they take.
        """
        shares, pictures = self.pixels.shares, self.pixels.slots_of_results(request)
        with shares.without(instead_of):
            before = shares.of(owner)
            mine, everyone = shares.with_another(owner, found.needs, pictures)
        has_others = any(session.owner != owner for session in self.sessions.values())
        if has_others and before and mine > self.pixels.slots - everyone:
            return None
        short = self.pixels.shortage(found.needs, pictures, instead_of)
        return self._leaving(short, found.needs, owner, mine - before)

    def make_way(self, leaving: Iterable[Job]) -> None:
        """Forget ended jobs whose pictures stand in the way of what is coming."""
        for job in leaving:
            log.warning("there is no room; %r, which nobody came for, is forgotten", job)
            self.forget(job)

    # The life of a job

    async def accept(self, session: Session, submit: Submit, position: int, work: int) -> Job:
        """Write a job down and tell its client.

        Raises `JournalError` if that is not possible, and `MissingTile` if its tiles are not all here; there is no
        job then. It counts from the call on, before anything is awaited. Raises `ValueError` if the session has a job
        of this id: whoever calls looks first, and awaits nothing in between.
        """
        if submit.job in session.jobs:
            raise ValueError(f"there is a job {submit.job} in {session!r} already")
        job = Job(session, submit, work, today())
        self.pixels.hold_request(job)
        session.jobs[job.id] = job
        self.usage[session.owner, job.day] += work
        try:
            await self._write_down(job, position)
        except BaseException:
            session.jobs.pop(job.id, None)
            self.usage[session.owner, job.day] -= work
            self.pixels.release_request(job)
            raise
        job.position = position
        return job

    async def start(self, job: Job) -> None:
        """The job is given to a worker."""
        job.attempts += 1
        self._reserve_numbers(job.session)
        attempts = told = job.attempts
        if self._late.has(job):
            told = job.state.attempt or attempts  # A daemon that knows of no start must not tell a lower one.
        entry = job.session.tell(job, Started(job.id, told), safe=False)
        await self._late.write(job, lambda: self._journal.start(job.session.id, job.id, attempts))
        job.session.now_safe(entry)  # Also if it is not written: a client takes the same attempt twice for what it is.

    def unstart(self, job: Job) -> None:
        """The job was taken from its worker through no fault of its own."""
        job.attempts -= 1
        self._journal.start(job.session.id, job.id, job.attempts)

    def tell(self, job: Job, message: Record) -> None:
        """Tell the client how far its job is."""
        self._reserve_numbers(job.session)
        job.session.tell(job, message)

    async def result(self, job: Job, result: Result) -> None:
        """One of the job's pictures is finished; its tiles were stored before."""
        if any(known.index == result.index for known in job.results):
            return  # It was finished before the worker died, and is the same picture.
        job.results.append(result)
        self._reserve_numbers(job.session)
        entry = job.session.tell(job, result, safe=False)
        row = _row(job.session, entry)
        await self._late.write(job, lambda: self._journal.append(row), entry)

    async def end(self, job: Job, message: Done | Failed | Cancelled) -> None:
        """The job ended."""
        self._reserve_numbers(job.session)
        done = job.state.fraction if job.attempts else 0.0
        entry = job.session.tell(job, message, safe=False)
        job.ended_at = time.monotonic()
        self.pixels.release_request(job)
        undone = {Done: 0.0, Failed: 1.0, Cancelled: 1 - done}[type(message)]
        self._remembered[job.session.owner] += job.size
        back = round(job.work * undone)
        self.usage[job.session.owner, job.day] -= back
        row, now = _row(job.session, entry), time.time()
        self._ending.add(job)
        try:
            await self._late.write(job, lambda: self._journal.end(row, now, back), entry)
        finally:
            self._ending.discard(job)
        self._keep_within_bounds(job)

    def forget(self, job: Job) -> None:
        """The client has everything, or nobody came for it."""
        job.session.forget(job)
        if job.state.ended:
            self._remembered[job.session.owner] -= job.size
        self._late.forget(job)
        self.pixels.release_results(job)
        self._journal.forget(job.session.id, job.id).add_done_callback(partial(self._after_forgetting, job))

    async def store_result(self, job: Job, tile: Tile) -> None:
        """Keep a tile of a result. Where there is no room, results that nobody came for have to go.

        Raises `StoreFull` if even that does not help, and `DiskFull`, for which nothing is forgotten.
        """
        while True:
            try:
                return await self.pixels.hold_result(job, tile)
            except DiskFull:
                raise
            except StoreFull:
                leaving = self._leaving(self.pixels.shortage_for(tile), (tile.name,))
                if leaving is None:
                    raise
                self.make_way(leaving)

    # What only this module does

    async def _write_down(self, job: Job, position: int) -> None:
        session = job.session
        if self._late.has_namesake(job):
            await self.catch_up()
            if self._late.has_namesake(job):
                raise JournalError("journal_unavailable", "it still holds an earlier job of this id")
        self._reserve_numbers(session)
        reserved = session.reserved
        if not session.stored:
            self._open_session(session)
        entry = session.tell(job, Accepted(job.id, position), safe=False)
        row_of_job = JobRow(session.id, job.id, vocabulary.encode(job.submit), 0, job.work, job.day, None)
        job.size = len(row_of_job.submit)
        try:
            try:
                await self._journal.accept(row_of_job, _row(session, entry), session.owner)
            except NotInJournal:  # It began anew, and has to be told of the session once more.
                self._open_session(session)
                await self._journal.accept(row_of_job, _row(session, entry), session.owner)
        except Contradiction as error:
            session.take_back(job)
            log.error("the job %s contradicts the journal: %s", job.id, error)
            raise JournalError("journal_unavailable", "it contradicts itself") from error
        except BaseException:
            session.take_back(job)
            raise
        session.now_reserved(reserved)
        session.now_safe(entry)

    def _open_session(self, session: Session) -> Future[None]:
        session.stored = True
        row = SessionRow(session.id, session.owner, session.client, session.reserved)
        return self._journal.open_session(row)

    def _after_forgetting(self, job: Job, written: Future[None]) -> None:
        """A job that the journal still holds would be done once more by the next daemon, or told of."""
        if not written.cancelled() and isinstance(written.exception(), JournalError):
            self._late.append(job, lambda: self._journal.forget(job.session.id, job.id))

    def _reserve_numbers(self, session: Session) -> None:
        if session.needs_numbers:
            session.reserved += NUMBERS
            if session.stored:
                written = self._journal.reserve(session.id, session.reserved)
                written.add_done_callback(partial(self._after_reserving, session, session.reserved))

    def _after_reserving(self, session: Session, below: int, written: Future[None]) -> None:
        error = None if written.cancelled() else written.exception()
        if error is None:
            session.now_reserved(below)
        elif isinstance(error, NotInJournal):  # It began anew.
            self._open_session(session).add_done_callback(partial(self._after_opening, session, below))
        else:
            session.not_reserved()

    @staticmethod
    def _after_opening(session: Session, below: int, written: Future[None]) -> None:
        if written.cancelled() or written.exception() is not None:
            session.not_reserved()
        else:
            session.now_reserved(below)

    def _idle(self) -> list[Session]:
        """Sessions to which somebody might come back, though nothing waits in them; who left first comes first."""
        idle = [session for session in self.sessions.values() if session.outbox is None and not session.jobs]
        return sorted(idle, key=lambda session: session.left_at)

    def _idle_by_owner(self) -> dict[str, list[Session]]:
        by_owner: dict[str, list[Session]] = {}
        for session in self._idle():
            by_owner.setdefault(session.owner, []).append(session)
        return by_owner

    def _forget_session(self, session: Session) -> None:
        del self.sessions[session.id]
        if session.stored:
            self._journal.forget_session(session.id)

    def _takes(self) -> Counter[str]:
        """How many slots of the store each owner has and will have: for jobs, and for results that wait."""
        takes = self.pixels.shares.by_owner()
        for job in self._ended():
            takes[job.session.owner] += job.slots_of_results
        return takes

    def _leaving(
        self, short: int, needed: Container[bytes], asker: str | None = None, more: int = 0
    ) -> Sequence[Job] | None:
        """The ended jobs that have to go to give `short` slots back; None if that is not to be had, or not fairly."""
        if short <= 0:
            return ()
        return leaving_for_room(self._over(), self._takes(), self.pixels.return_of(needed), short, asker, more)

    def _keep_within_bounds(self, last: Job) -> None:
        """One token does not fill the journal for all: what ended before `last` goes."""
        owner = last.session.owner
        if self._remembered[owner] <= self._keep.bytes_each:
            return
        for job in least_wanted_first(job for job in self._over() if job.session.owner == owner and job is not last):
            log.warning("too much waits for one client; %r is forgotten", job)
            self.forget(job)
            if self._remembered[owner] <= self._keep.bytes_each:
                return

    def _over(self) -> Iterator[Job]:
        """Ended jobs that may go: whose end is not told yet is waited for, and would never be heard of."""
        return (job for job in self._ended() if job not in self._ending and not self._late.has(job))

    def _ended(self) -> Iterator[Job]:
        """Jobs that have ended and wait to be acknowledged."""
        for session in self.sessions.values():
            yield from (job for job in session.jobs.values() if job.state.ended)


def today() -> str:
    """The day in UTC, as in "2026-11-23"."""
    return datetime.now(UTC).date().isoformat()


def _row(session: Session, entry: Entry) -> EventRow:
    return EventRow(session.id, entry.seq, entry.job, vocabulary.encode(entry.message))
