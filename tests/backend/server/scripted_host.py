"""A host that runs nothing: of jobs over the book's pictures it says what a test tells it to say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import dataclass, field

from underpaint_backend.server.hosts import Host
from underpaint_backend.server.pulls import FetchFailed, Progress
from underpaint_backend.worker.interface import Memory
from underpaint_protocol.errors import describe
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Done, Model, Submit, Tile, Worker

from tests.backend.server.books import IMAGE, MASK


@dataclass
class Run:
    """A job in the host's hands."""

    submit: Submit
    steps: asyncio.Queue[Record | Exception | None] = field(default_factory=asyncio.Queue)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    fraction: float = 0.0
    pictures: int = 0
    cancelled: bool = False


class ScriptedHost:
    """Runs nothing: it says what it is told to say, of jobs whose pixels it has read."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.worker = Worker("ready")
        self.runs: dict[str, Run] = {}
        self.alone = False
        """Whether each job is done at once."""

    def models(self) -> tuple[Model, ...]:
        return ()

    async def refresh(self) -> None:
        """There is nothing that could change."""

    def fetch(self, model: str, on_progress: Callable[[Progress], None], left_off: threading.Event) -> bool:
        raise FetchFailed(describe("unknown_model", detail=model))

    async def start(self, on_change: Callable[[Worker], None]) -> None:
        """There is nothing to start."""

    async def run(self, submit: Submit, tiles: AsyncIterable[Tile]) -> AsyncGenerator[Record]:
        assert submit.job not in self.runs
        assert len(self.runs) < self.capacity
        run = self.runs[submit.job] = Run(submit)
        try:
            assert [tile.name async for tile in tiles] == [*IMAGE.tiles, *MASK.tiles]
            while not self.alone:
                run.idle.set()
                step = await run.steps.get()
                if step is None:
                    return
                if isinstance(step, Exception):
                    raise step
                yield step
            yield Done(submit.job, 1.0)
        finally:
            del self.runs[submit.job]
            run.idle.set()

    def cancel(self, job: str) -> None:
        if job in self.runs:
            self.runs[job].cancelled = True

    async def free_memory(self) -> Memory | None:
        return None

    async def close(self) -> None:
        """There is nothing to close."""

    async def say(self, run: Run, *steps: Record | Exception | None) -> None:
        """Say something in a job, and wait until that was dealt with."""
        for step in steps:
            run.idle.clear()
            run.steps.put_nowait(step)
            await run.idle.wait()

    def finish_all(self) -> None:
        """From now on each job is done at once, those that run as well."""
        self.alone = True
        for run in self.runs.values():
            run.steps.put_nowait(Done(run.submit.job, 1.0))


def scripted(host: ScriptedHost) -> Host:
    """The host, as the type checker sees that it is one."""
    return host
