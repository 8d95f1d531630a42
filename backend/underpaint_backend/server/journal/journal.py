"""The daemon's journal: what was accepted is kept in a SQLite file until its client has fetched it.

The file has a thread of its own. An operation is a plain call on the event loop that returns a future at once; the
future is done when the operation is committed. Operations are applied in the order of the calls, and all that wait go
into one transaction, so that a burst of them costs one flush of the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from asyncio import Future
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import statements
from .rows import Contents, EventRow, JobRow, JournalError, SessionRow
from .writer import Operation, Writer


@dataclass(frozen=True)
class _Write:
    operation: Operation
    done: Future[None]


class Journal:
    """The journal in one file. Its methods are called on the event loop on which it was opened.

    Each future may end with a `JournalError`: "journal_full" until something is forgotten or the disk has room, or
    "journal_unavailable" while the file cannot be used, which is tried again at most every `reopen_after` seconds.
    Its subclass `NotInJournal` says that the session or job is not there, and `Contradiction` that the operation
    should not have been asked for. Whatever the error, nothing of that operation was done.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int | None = None,
        *,
        reopen_after: float = 3.0,
        busy_timeout: float = 3.0,
    ) -> None:
        """`max_bytes` bounds the file without its WAL; jobs are refused when seven eighths of it are used.

        `busy_timeout` is how many seconds another process may lock the file before it counts as unavailable.
        """
        self._writer = Writer(path, max_bytes, reopen_after, busy_timeout)
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def open(self) -> Contents:
        """Open the file, once, and return what it holds.

        It never raises: a damaged file is set aside, and one that cannot be opened counts as empty.
        """
        opened: Future[Contents] = asyncio.get_running_loop().create_future()
        self._thread = threading.Thread(target=self._work, args=(opened,), name="journal", daemon=True)
        self._thread.start()
        return await opened

    async def close(self) -> None:
        """Commit what was called before, and close the file; afterwards every operation fails."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            await asyncio.to_thread(thread.join)

    def open_session(self, row: SessionRow) -> Future[None]:
        """Keep a session. One that is there already keeps its owner and the larger `reserved`."""
        return self._do(partial(statements.open_session, row=row))

    def reserve(self, session: str, reserved: int) -> Future[None]:
        """Sequence numbers below `reserved` may be used once this is done."""
        return self._do(partial(statements.reserve, session=session, reserved=reserved))

    def accept(self, job: JobRow, event: EventRow, owner: str) -> Future[None]:
        """Keep a job and its first event, and charge `owner` for its work: all of it or nothing.

        A job that the session has already is left as it is, without a second event or charge.
        """
        return self._do(partial(statements.accept, job=job, event=event, owner=owner))

    def start(self, session: str, job: str, attempts: int) -> Future[None]:
        """The job is started for the `attempts`-th time."""
        return self._do(partial(statements.start, session=session, job=job, attempts=attempts))

    def append(self, event: EventRow) -> Future[None]:
        """Keep an event of a job."""
        return self._do(partial(statements.append, event=event))

    def end(self, event: EventRow, ended: float, refund: int = 0) -> Future[None]:
        """Keep the terminal event of a job that ended at the Unix time `ended`; a second one is a `Contradiction`.

        With it, `refund` of the job's charge is taken back from the owner of its session.
        """
        return self._do(partial(statements.end, event=event, ended=ended, refund=refund))

    def refund(self, owner: str, day: str, work: int) -> Future[None]:
        """Take back a charge of a job that is forgotten before it ended."""
        return self._do(partial(statements.refund, owner=owner, day=day, work=work))

    def forget(self, session: str, job: str) -> Future[None]:
        """Remove a job and its events; nothing happens if it is not there."""
        return self._do(partial(statements.forget, session=session, job=job))

    def forget_session(self, session: str) -> Future[None]:
        """Remove a session with all its jobs and events; nothing happens if it is not there."""
        return self._do(partial(statements.forget_session, session=session))

    def forget_usage_before(self, day: str) -> Future[None]:
        """Remove what was charged before `day`, which is written as in "2026-11-23"."""
        return self._do(partial(statements.forget_usage_before, day=day))

    def _do(self, operation: Operation) -> Future[None]:
        write = _Write(operation, asyncio.get_running_loop().create_future())
        if self._thread is None:
            _resolve([write], [JournalError("journal_unavailable", "it is closed")])
        else:
            self._waiting.put(write)
        return write.done

    def _work(self, opened: Future[Contents]) -> None:
        """The thread's whole life."""
        loop = opened.get_loop()
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_open_with, opened, self._writer.open())
            while group := self._take():
                outcomes = self._writer.write([write.operation for write in group])
                loop.call_soon_threadsafe(_resolve, group, outcomes)
        self._writer.close()

    def _take(self) -> list[_Write]:
        """All that waits, at least one; nothing once the journal is to be closed."""
        group = []
        write = self._waiting.get()
        while write is not None:
            group.append(write)
            try:
                write = self._waiting.get_nowait()
            except queue.Empty:
                return group
        self._waiting.put(None)  # for the next call, which is the last
        return group


def _open_with(opened: Future[Contents], contents: Contents) -> None:
    if not opened.done():  # its waiter may have been cancelled
        opened.set_result(contents)


def _resolve(group: Sequence[_Write], outcomes: Sequence[Exception | None]) -> None:
    for write, outcome in zip(group, outcomes, strict=True):
        if write.done.done():
            continue
        if outcome is None:
            write.done.set_result(None)
        else:
            write.done.set_exception(outcome)
            write.done.exception()  # asyncio need not complain about those who do not ask
