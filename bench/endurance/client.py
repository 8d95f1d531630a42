"""`python -m endurance.client`: a client that does what is planned for it, through whatever happens.

It may be killed at any time and started again with the same words: its record tells it what it did, and which session
it had. It ends with 0 when all its jobs have ended and are acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import signal
from pathlib import Path
from random import Random

from underpaint_protocol.client import ClientSession, Event, Picture, preferred_encodings
from underpaint_protocol.exceptions import ProtocolError
from underpaint_protocol.messages import (
    Accepted,
    Cancelled,
    Done,
    Error,
    Failed,
    Started,
    Submit,
    vocabulary,
)

from .plan import Planned, plan
from .record import Record
from .talk import Talk

LONGEST_WAIT = 1.0
"""Seconds after which a refused job is submitted again, at most."""


class Program:
    """Submits planned jobs, some at a time, and writes down what becomes of them."""

    def __init__(self, jobs: list[Planned], record: Record, window: int, calm: bool) -> None:
        """`window` jobs are open at once. While `calm`, no job is cancelled, superseded or submitted twice."""
        self.finished = asyncio.Event()
        self.ready = asyncio.Event()
        """A connection's session is agreed on."""
        self._jobs = {job.id: job for job in jobs}
        self._record = record
        self._window = window
        self._calm = calm
        self._waiting: set[str] = set()  # refused, and to be submitted again
        self._random = Random()

    def begin(self, talk: Talk) -> None:
        """Do all of it with `talk`, whose callbacks are this program's methods."""
        self._talk = talk
        self._session = talk.session

    def on_ready(self) -> None:
        """A connection stands: write down its session, and go on."""
        assert self._session.session is not None
        self.ready.set()
        self._record.write("session", session=self._session.session)
        for job in self._session.running:
            self._arrange_cancel(self._jobs[job])
        self._submit_more()

    def on_lost(self, reason: Exception | None) -> None:
        """A connection is gone, or could not be made."""
        self._record.write("broken" if isinstance(reason, ProtocolError) else "lost", detail=repr(reason)[:300])

    def on_event(self, event: Event) -> None:
        """Write an event down and act on it."""
        if isinstance(event, Picture):
            words = repr((event.width, event.height, event.x, event.y, event.depth, event.seed))
            content = hashlib.sha256(words.encode() + event.pixels).hexdigest()
            self._record.write("picture", event.job, detail=content, number=event.index)
        elif isinstance(event, Accepted):
            self._state(event, "accepted")
            self._submit_again(self._jobs[event.job])
        elif isinstance(event, Started):
            self._state(event, "started", number=event.attempt)
        elif isinstance(event, (Done, Failed, Cancelled)):
            detail = f"{event.error.code}: {event.error.message}" if isinstance(event, Failed) else ""
            self._state(event, type(event).__name__.lower(), detail=detail)
            self._session.acknowledge(event.job)
            self._submit_more()
        elif isinstance(event, Error):
            self._refused(event)

    def _state(
        self, event: Accepted | Started | Done | Failed | Cancelled, what: str, detail: str = "", number: int = 0
    ) -> None:
        session = self._session.session or ""
        self._record.write(what, event.job, seq=event.seq, session=session, detail=detail, number=number)

    def _refused(self, error: Error) -> None:
        job = error.job
        if job is None or job in self._session.open or job in self._record.ended:
            self._record.write("error", job or "", detail=error.error.code)
            return
        self._record.write("refused", job, detail=error.error.code)
        self._waiting.add(job)
        asyncio.get_running_loop().call_later(LONGEST_WAIT * self._random.random(), self._come_again, job)

    def _come_again(self, job: str) -> None:
        self._waiting.discard(job)
        self._submit_more()

    def _submit_more(self) -> None:
        """Submit what the window has room for; until the session is agreed on nobody knows what is open."""
        if not self._session.ready:
            return
        open_jobs = set(self._session.open)
        room = self._window - len(self._waiting) - len(open_jobs)
        left = [job for job in self._jobs.values() if job.id not in self._record.ended]
        for job in left:
            if room > 0 and job.id not in open_jobs and job.id not in self._waiting:
                self._submit(job)
                room -= 1
        if not left and not open_jobs:
            self.finished.set()
        self._talk.wake()

    def _submit(self, job: Planned) -> None:
        self._record.write("submit", job.id)
        supersedes = None if self._calm else job.supersedes
        self._session.submit(job.id, job.request, job.tiles, previews=job.previews, supersedes=supersedes)
        self._arrange_cancel(job)

    def _arrange_cancel(self, job: Planned) -> None:
        if job.conduct == "cancelled" and not self._calm:
            asyncio.get_running_loop().call_later(job.delay, self._cancel, job.id)

    def _cancel(self, job: str) -> None:
        self._session.cancel(job)
        self._talk.wake()

    def _submit_again(self, job: Planned) -> None:
        """Say the same once more, as a client might that is not sure of having said it."""
        if job.conduct == "twice" and not self._calm:
            self._talk.send_raw(vocabulary.encode(Submit(job.id, job.request, job.previews)))


async def run(options: argparse.Namespace) -> None:
    """Live until all is done."""
    record = Record(options.record)
    encodings = preferred_encodings(local=options.number % 2 == 0)
    session = ClientSession(f"client {options.number}", encodings, record.session)
    program = Program(plan(options.seed, options.number, options.jobs), record, options.window, options.calm)
    talk = Talk(session, options.url, options.token, program.on_event, program.on_ready, program.on_lost)
    program.begin(talk)
    stalls: set[asyncio.Task[None]] = set()
    asyncio.get_running_loop().add_signal_handler(signal.SIGURG, lambda: stalls.add(_stall(talk)))
    talking = asyncio.create_task(talk.run())
    finished = asyncio.create_task(program.finished.wait())
    await asyncio.wait((talking, finished), return_when=asyncio.FIRST_COMPLETED)
    if not talking.done():
        await _take_leave(talk, program)
    finished.cancel()
    await talking  # raises what broke it
    record.write("finished")


def _stall(talk: Talk) -> asyncio.Task[None]:
    """Read nothing for longer than the bench lets the daemon bear it."""
    return asyncio.create_task(talk.stall(3.5))


async def _take_leave(talk: Talk, program: Program) -> None:
    """Connect once more, so that the session says again what an acknowledgement that was lost did not."""
    program.ready.clear()
    await talk.hang_up()
    await program.ready.wait()
    await talk.leave()


def main() -> None:
    """Read the words and live."""
    parser = argparse.ArgumentParser(prog="python -m endurance.client", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--calm", action="store_true")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
