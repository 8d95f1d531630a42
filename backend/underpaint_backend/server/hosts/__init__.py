"""Hosts: where workers run. The server knows only this interface; a new place to run workers is one class."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Protocol

from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Model, Submit, Tile, Worker

from ...worker.interface import Memory
from ..pulls import Progress


class Host(Protocol):
    """A place that runs jobs."""

    def models(self) -> tuple[Model, ...]:
        """What can run here, or could. Answers at once, also while the worker is starting."""

    async def refresh(self) -> None:
        """Look again at what models there are, and how they fit into the worker's memory."""

    def fetch(self, model: str, on_progress: Callable[[Progress], None], left_off: threading.Event) -> bool:
        """Fetch the files of a model that is absent, as `pulls.Fetch` says. Blocks: it has a thread of its own."""

    @property
    def capacity(self) -> int:
        """How many jobs may run at the same time, at least 1."""

    @property
    def worker(self) -> Worker:
        """How the worker is at this moment."""

    async def start(self, on_change: Callable[[Worker], None]) -> None:
        """Begin to start the worker, without waiting for it; `on_change` hears of every new state."""

    def run(self, submit: Submit, tiles: AsyncIterable[Tile]) -> AsyncGenerator[Record]:
        """Run one job and yield its messages; the last one is `Done`, `Failed` or `Cancelled`, whatever happens.

        `tiles` are those that the request names, raw; what they raise is raised here. The tiles of a result come
        before it. At most `capacity` jobs are run at once. Closing the generator early stops the job.
        """

    def cancel(self, job: str) -> None:
        """Ask to stop a running job, which still ends through `run`. Nothing happens for a job that is not running."""

    async def free_memory(self) -> Memory | None:
        """Memory of the device; None while there is no worker."""

    async def close(self) -> None:
        """Stop the worker. No process is left behind."""
