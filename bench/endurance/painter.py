"""A client that paints job after job, loses its connection now and then, and comes back as somebody else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from random import Random

from underpaint_protocol.client import ClientSession, Event, preferred_encodings
from underpaint_protocol.exceptions import ProtocolError
from underpaint_protocol.messages import Cancelled, Done, Error, Failed

from .plan import Planned
from .talk import Talk

WINDOW = 5
"""Jobs that are open at once."""
LONGEST_VISIT = 120
"""Jobs after which a session is left for good, at most."""
DISCONNECTED = 0.02
"""How many ends of jobs are followed by a lost connection, as a fraction."""


class Painter:
    """Takes jobs from an iterator that others may share, and counts how they end."""

    def __init__(self, number: int, url: str, token: str, jobs: Iterator[Planned], ends: Counter[str]) -> None:
        """`ends` counts jobs by how they ended, and connections."""
        self._number = number
        self._url = url
        self._token = token
        self._jobs = jobs
        self._ends = ends
        self._random = Random(number)
        self._left = 0

    async def paint(self) -> None:
        """Do jobs until there is none left. Raises `ProtocolError` if the daemon breaks the language."""
        job = next(self._jobs, None)
        while job is not None:
            self._left = self._random.randint(1, LONGEST_VISIT)
            job = await self._visit(job)

    async def _visit(self, job: Planned | None) -> Planned | None:
        """One session from its begin to its end, beginning with `job`; returns the job of the next one."""
        session = ClientSession(f"painter {self._number}", preferred_encodings(local=self._number % 2 == 0))
        talk = Talk(session, self._url, self._token, self._on_event, on_lost=self._on_lost)
        self._talk = talk
        self._ended = asyncio.Event()
        talking = asyncio.create_task(talk.run())
        while (job is not None and self._left > 0) or session.open:
            while job is not None and self._left > 0 and len(session.open) < WINDOW:
                self._submit(job)
                self._left -= 1
                job = next(self._jobs, None)
            self._ended.clear()
            await asyncio.wait((talking, _soon(self._ended)), return_when=asyncio.FIRST_COMPLETED)
            if talking.done():
                break
        await talk.leave()
        await talking
        return job

    def _submit(self, job: Planned) -> None:
        # It may be another painter's.
        supersedes = job.supersedes if job.supersedes in self._talk.session.open else None
        self._talk.session.submit(job.id, job.request, job.tiles, previews=job.previews, supersedes=supersedes)
        if job.conduct == "cancelled":
            asyncio.get_running_loop().call_later(job.delay, self._cancel, self._talk, job.id)
        self._talk.wake()

    @staticmethod
    def _cancel(talk: Talk, job: str) -> None:
        talk.session.cancel(job)
        talk.wake()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Error):
            raise ProtocolError(f"refused: {event.error.message}")
        if not isinstance(event, (Done, Failed, Cancelled)):
            return
        self._ends[type(event).__name__.lower()] += 1
        self._talk.session.acknowledge(event.job)
        self._ended.set()
        if self._random.random() < DISCONNECTED:
            self._talk.drop()

    def _on_lost(self, reason: Exception | None) -> None:
        self._ends["connections"] += 1
        if isinstance(reason, ProtocolError):
            raise reason


def _soon(event: asyncio.Event) -> asyncio.Task[bool]:
    return asyncio.create_task(event.wait())
