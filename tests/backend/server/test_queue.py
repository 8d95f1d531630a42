"""Queue, book, journal and tiles together, under a host that does whatever a machine of rules decides."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from underpaint_backend.server.book import Book, Keep
from underpaint_backend.server.journal import Journal, JournalError
from underpaint_backend.server.outbox import Outbox
from underpaint_backend.server.queue import JobQueue
from underpaint_backend.server.sessions import Job, Session
from underpaint_backend.server.tiles import TileStore
from underpaint_protocol.errors import describe
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Cancelled, Done, Failed, Preview, Progress, Result, Submit, Tile

from tests.backend.server.attentive_client import Client
from tests.backend.server.books import MASK_TILES, REQUEST, TILES, flood, nothing_is_kept
from tests.backend.server.scripted_host import Run, ScriptedHost, scripted

ROOM = 64 << 10
SLOT = 1024
MOST_JOBS = 24
"""So many results and a request fit into the room."""
WORK = 7
PATIENCE = 0.01
"""Seconds for which the journal waits for a locked file, and for which it does without it then."""
STEPS = st.sampled_from(["progress", "back", "preview", "picture", "done", "failed", "died", "raise", "stop"])


class QueueMachine(RuleBasedStateMachine):
    """A daemon without its sockets: clients, a host, a journal that others lock, and restarts in between."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._home = Path(self._folder.name)
        self._runner = asyncio.Runner()
        self._clients = [Client("anna"), Client("bert")]
        self._names = 0
        self._shade = 0
        self._submitted: list[tuple[Client, str]] = []
        self._locker: sqlite3.Connection | None = None
        self._behind = False
        """Whether something was done while the journal was locked that was not written down since."""
        self._late = False
        """Whether the daemon before this one could not write all down."""

    @initialize(capacity=st.sampled_from([1, 2]))
    def begin(self, capacity: int) -> None:
        self._capacity = capacity
        self._run(self._open())

    # The daemon

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        async def in_time() -> None:
            async with asyncio.timeout(20):
                await what

        self._runner.run(in_time())

    async def _open(self) -> None:
        self._journal = Journal(self._home / "journal.sqlite", reopen_after=PATIENCE, busy_timeout=PATIENCE)
        self._book = Book(self._journal, TileStore(self._home / "tiles", ROOM, SLOT), Keep())
        self._host = ScriptedHost(self._capacity)
        self._queue = JobQueue(scripted(self._host), self._book)
        waiting = await self._book.open()
        for job in waiting:
            assert not self._is_over(job), "a job that was acknowledged is done again"
            await self._queue.add(job)
        self._work = asyncio.create_task(self._queue.work())
        for client in self._clients:
            await self._come(client)
        await self._settle()

    def _is_over(self, job: Job) -> bool:
        return any(client.session == job.session.id and job.id in client.over for client in self._clients)

    async def _shut(self, killed: bool) -> None:
        """End the daemon; one that is killed writes nothing more, and one that is stopped tells what it still can."""
        if killed:
            await self._journal.close()
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)
        if not killed:
            await self._book.close()
        self._book.pixels.close()
        for client in self._clients:
            if client.outbox is not None and not killed:
                client.listen(100_000)
        self._late = self._locker is not None or (killed and self._behind)
        lost = [client.forget_what_was_lost(self._written(client)) for client in self._clients]
        assert not any(lost) or self._late, "what was told is lost"
        for client in self._clients:
            client.outbox = None

    def _written(self, client: Client) -> set[int]:
        with sqlite3.connect(self._home / "journal.sqlite") as journal:
            rows = journal.execute("SELECT seq FROM events WHERE session = ?", (client.session,)).fetchall()
        journal.close()
        return {seq for (seq,) in rows}

    async def _settle(self) -> None:
        """Wait until all that can happen by itself has happened."""
        steady = 0
        while steady < 2:
            for _ in range(10):
                await asyncio.sleep(0)
            with contextlib.suppress(JournalError):
                await self._journal.forget_usage_before("")
            steady = steady + 1 if self._is_still() else 0
            if not steady:
                await asyncio.sleep(0.001)

    def _is_still(self) -> bool:
        """Whether the host has as many jobs as it can have, and waits for steps in all of them."""
        runs = self._host.runs.values()
        unended = sum(len(self._book.unended(client.owner)) for client in self._clients)
        return all(run.idle.is_set() for run in runs) and (
            self._queue.draining or len(runs) == min(self._capacity, unended)
        )

    async def _come(self, client: Client) -> None:
        """Greet, or go on with the session; jobs that are over are acknowledged once more."""
        session = self._book.find(client.session, client.owner)
        if session is None:
            assert not client.accepted - client.over, "a session with jobs is lost"
            session = self._book.new_session(client.owner, "test")
            client.session, client.heard = session.id, 0
        lost = client.accepted - client.over - session.jobs.keys()
        assert not lost or self._late, "a job is lost"
        client.over |= lost
        if client.outbox is not None:
            client.outbox.close()
        client.outbox = Outbox()
        client.outbox.follow(session, client.heard)
        for name in client.over & set(session.jobs):
            if session.jobs[name].state.ended:
                self._book.forget(session.jobs[name])

    def _session(self, client: Client) -> Session:
        session = self._book.find(client.session, client.owner)
        assert session is not None
        return session

    # Clients

    @precondition(lambda self: self._names < MOST_JOBS)
    @rule(both=st.booleans(), who=st.integers(0, 1), older=st.none() | st.integers(0, 5), cancel=st.booleans())
    def submit(self, both: bool, who: int, older: int | None, cancel: bool) -> None:
        """One client submits a job, or both do under the same id; some are cancelled before they are written down."""
        self._names += 1
        name = f"job{self._names}"
        for client in self._clients if both else [self._clients[who]]:
            if client.outbox is not None:
                self._run(self._submit(client, name, older, cancel))

    async def _submit(self, client: Client, name: str, older: int | None, cancel: bool) -> None:
        if self._queue.draining:
            return
        known = [other for owner, other in self._submitted if owner is client]
        supersedes = known[older % len(known)] if known and older is not None else None
        accepting = asyncio.create_task(self._accept(client, Submit(name, REQUEST, supersedes=supersedes)))
        while cancel and not accepting.done():
            await asyncio.sleep(0)
            job = self._session(client).jobs.get(name)
            if job is not None:
                await self._queue.cancel(job)
                break
        await accepting
        await self._settle()

    async def _accept(self, client: Client, submit: Submit) -> None:
        """What a connection does with a submit."""
        session = self._session(client)
        for name, data in {**TILES, **MASK_TILES}.items():
            await self._book.pixels.store(Tile(name, len(data), data))
        try:
            job = await self._book.accept(session, submit, self._queue.place_of(Job(session, submit)), WORK)
        except JournalError:
            assert self._locker is not None, "the journal refuses a job and is not locked"
            assert submit.job not in session.jobs
            return
        client.accepted.add(job.id)
        self._submitted.append((client, job.id))
        await self._queue.add(job)
        older = session.jobs.get(submit.supersedes or "")
        if older is not None and not older.state.ended:
            await self._queue.cancel(older)

    @precondition(lambda self: self._submitted)
    @rule(which=st.integers(0, 20))
    def cancel(self, which: int) -> None:
        client, name = self._submitted[-1 - which % len(self._submitted)]
        job = self._session(client).jobs.get(name)
        if job is not None and not job.state.ended:
            self._run(self._queue.cancel(job))
            self._run(self._settle())

    @rule(who=st.integers(0, 1), most=st.sampled_from([1, 2, 100_000]))
    def listen(self, who: int, most: int) -> None:
        self._clients[who].listen(most)

    @rule(who=st.integers(0, 1))
    def leave(self, who: int) -> None:
        client = self._clients[who]
        if client.outbox is not None:
            client.outbox.close()
            client.outbox = None
            self._book.leave(self._session(client))

    @rule(who=st.integers(0, 1))
    def come_back(self, who: int) -> None:
        """Another connection goes on with the session, whether or not the old one is gone."""
        self._run(self._come(self._clients[who]))

    @rule(who=st.integers(0, 1))
    def acknowledge(self, who: int) -> None:
        """All jobs whose end was heard."""
        client = self._clients[who]
        if client.outbox is not None:
            self._run(self._acknowledge(client))

    async def _acknowledge(self, client: Client) -> None:
        jobs = self._session(client).jobs
        for name in client.ends.keys() - client.over:
            client.over.add(name)
            assert jobs[name].state.ended, "a job whose end was told goes on"
            self._book.forget(jobs[name])
        await self._settle()

    # The host

    @precondition(lambda self: self._host.runs)
    @rule(which=st.integers(0, 1), steps=st.lists(STEPS, min_size=1, max_size=4))
    def step(self, which: int, steps: list[str]) -> None:
        runs = list(self._host.runs.values())
        self._run(self._step(runs[which % len(runs)], steps))

    async def _step(self, run: Run, steps: list[str]) -> None:
        for step in steps:
            if run in self._host.runs.values():
                await self._host.say(run, *self._said(run, step))
        await self._settle()

    @precondition(lambda self: any(run.cancelled for run in self._host.runs.values()))
    @rule()
    def end_what_was_cancelled(self) -> None:
        for run in [run for run in self._host.runs.values() if run.cancelled]:
            self._run(self._host.say(run, Cancelled(run.submit.job)))
        self._run(self._settle())

    def _said(self, run: Run, step: str) -> list[Record | Exception | None]:
        job = run.submit.job
        if step == "picture":
            return self._picture(run)
        if step in ("progress", "back"):
            run.fraction = min(1.0, run.fraction + 0.3) if step == "progress" else 0.0
            return [Progress(job, "denoising", run.fraction)]
        steps: dict[str, Record | Exception | None] = {
            "preview": Preview(job, 0, 1, 2, 2, b"jpeg", 0.0),
            "done": Done(job, 1.0),
            "failed": Failed(job, describe("internal")),
            "died": Failed(job, describe("worker_died", detail="SIGKILL")),
            "raise": ConnectionError("the worker's computer is gone"),
            "stop": None,
        }
        return [steps[step]]

    def _picture(self, run: Run) -> list[Record | Exception | None]:
        if run.pictures:
            return []
        self._shade += 1
        run.pictures += 1
        image, tiles = image_of(16, 16, 4, self._shade.to_bytes(4, "little") * 256)
        return [*(Tile(name, len(data), data) for name, data in tiles.items()), Result(run.submit.job, 0, 0, image)]

    # Time and chance

    @precondition(lambda self: self._locker is None)
    @rule()
    def lock(self) -> None:
        """Another process takes the journal."""
        self._locker = sqlite3.connect(self._home / "journal.sqlite", isolation_level=None, timeout=5)
        self._locker.execute("BEGIN EXCLUSIVE")
        self._behind = True

    @precondition(lambda self: self._locker is not None)
    @rule()
    def unlock(self) -> None:
        """It lets go, and the journal is opened again; what is missing there is written with the next chores."""
        assert self._locker is not None
        self._locker.execute("ROLLBACK")
        self._locker.close()
        self._locker = None
        self._run(asyncio.sleep(1.5 * PATIENCE))

    @rule()
    def do_chores(self) -> None:
        self._run(self._chores())

    async def _chores(self) -> None:
        await self._book.catch_up()
        self._book.expire()
        await self._settle()
        self._behind = self._locker is not None

    @rule()
    def flood(self) -> None:
        """Other pixels come that push out all that nobody needs."""
        self._run(flood(self._book, ROOM))

    @rule()
    def drain(self) -> None:
        """The daemon takes nothing more; what runs goes on until the restart."""
        self._run(self._queue.drain(0.0))

    @precondition(lambda self: self._locker is None)
    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        self._run(self._shut(killed))
        self._behind = False
        self._run(self._open())

    @precondition(lambda self: self._locker is not None)
    @rule(killed=st.booleans())
    def restart_of_a_locked_journal(self, killed: bool) -> None:
        """The lock is gone when the next daemon comes, but the last one could write nothing down."""
        self._run(self._shut(killed))
        self.unlock()
        self._behind = False
        self._run(self._open())

    # What always holds

    @invariant()
    def nobody_has_used_less_than_nothing(self) -> None:
        assert all(work >= 0 for work in self._book.usage.values()) if hasattr(self, "_book") else True

    @invariant()
    def what_was_told_can_be_fetched(self) -> None:
        for client in self._clients:
            assert self._book.pixels.missing(client.wanted) == [] if client.wanted else True

    def teardown(self) -> None:
        """In the end each job has ended once for its client, and nothing is kept for anybody."""
        try:
            if hasattr(self, "_book"):
                self._end()
        finally:
            if self._locker is not None:
                self._locker.close()
            self._runner.close()
            self._folder.cleanup()

    def _end(self) -> None:
        if self._locker is not None:
            self.unlock()
        self.do_chores()
        self.restart(killed=False)
        self._host.finish_all()
        self._run(self._settle())
        for client in self._clients:
            client.listen(100_000)
            assert client.ends.keys() | client.over >= client.accepted, "a job never ended"
            self._run(self._acknowledge(client))
        self._run(self._nothing_is_kept())
        self.restart(killed=True)
        assert all(not self._session(client).jobs for client in self._clients)
        self._run(self._nothing_is_kept())
        self._run(self._shut(killed=False))

    async def _nothing_is_kept(self) -> None:
        assert await nothing_is_kept(self._book, ROOM)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=30, stateful_step_count=40)
