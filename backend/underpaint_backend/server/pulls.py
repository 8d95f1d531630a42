"""Models on their way to this machine: one download at a time, in a thread of its own, and the others behind it.

A download belongs to the daemon, not to the connection on which it was asked for: it goes on when its client leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.messages import Model, Pulling

log = logging.getLogger(__name__)

NEWS_INTERVAL = 0.25
"""Seconds between two news of a download."""
GRACE = 5.0
"""Seconds that a download gets to end when the daemon does. Then the process goes: what came lies on the disk."""


class Progress(Protocol):
    """How far a download is, in bytes; `seconds_left` is None while nobody can tell."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def seconds_left(self) -> float | None: ...


class FetchFailed(Exception):
    """A model could not be fetched; `error` says it in words."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.error = error


Fetch = Callable[[str, Callable[[Progress], None], threading.Event], bool]
"""Fetches the model of this id, and blocks meanwhile: tells how far it is, and leaves off when the event is set.

Returns whether all is there, so False if it left off. Raises `FetchFailed`.
"""


@dataclass
class _Pull:
    """A model that somebody wants."""

    model: str
    news: Pulling
    left_off: threading.Event = field(default_factory=threading.Event)


class Pulls:
    """The downloads of one daemon. Use it from its event loop."""

    def __init__(self, fetch: Fetch, tell: Callable[[Pulling], None], fetched: Callable[[], Awaitable[None]]) -> None:
        """`tell` hears how far each download is; `fetched` is awaited when a model has come, before its end is told."""
        self._fetch = fetch
        self._tell = tell
        self._fetched = fetched
        self._wanted: dict[str, _Pull] = {}
        self._asked = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def current(self) -> tuple[Pulling, ...]:
        """How far those are that run or wait."""
        return tuple(pull.news for pull in self._wanted.values())

    def pull(self, model: Model) -> Pulling:
        """Have a model fetched, after those that were asked for before; how far it is. Asking twice does no harm."""
        pull = self._wanted.get(model.id)
        if pull is None:
            pull = self._wanted[model.id] = _Pull(model.id, Pulling(model.id, 0, max(1, model.download)))
            self._asked.set()
        return pull.news

    def stop(self, model: str) -> bool:
        """Leave off, which those who listen are told at once; False if the model is not being fetched."""
        pull = self._wanted.pop(model, None)
        if pull is None:
            return False
        pull.left_off.set()
        self._tell(replace(pull.news, stopped=True))
        return True

    async def work(self) -> None:
        """Fetch what is asked for, for as long as this is not cancelled."""
        while True:
            while self._wanted:
                await self._carry_out(next(iter(self._wanted.values())))
            self._asked.clear()
            await self._asked.wait()

    async def close(self) -> None:
        """Stop everything, and wait until the thread is gone, unless that takes too long."""
        for model in tuple(self._wanted):
            self.stop(model)
        try:
            await asyncio.wait_for(self._idle.wait(), GRACE)
        except TimeoutError:
            log.warning("a download does not leave off; what came of it is kept")

    async def _carry_out(self, pull: _Pull) -> None:
        end = await self._outcome(pull)
        if self._wanted.get(pull.model) is pull:  # or it was stopped, which was told already
            del self._wanted[pull.model]
            self._tell(end)

    async def _outcome(self, pull: _Pull) -> Pulling:
        try:
            complete = await self._downloaded(pull)
            if complete:
                log.info("the model %s was fetched", pull.model)
                await self._fetched()
        except FetchFailed as failed:
            log.warning("the model %s was not fetched: %s", pull.model, failed)
            return replace(pull.news, error=failed.error)
        except Exception:
            log.exception("the model %s was not fetched", pull.model)
            return replace(pull.news, error=describe("internal"))
        return replace(pull.news, done=pull.news.total) if complete else replace(pull.news, stopped=True)

    async def _downloaded(self, pull: _Pull) -> bool:
        """Fetch a model in a thread, and tell how far it is. Raises what the download raises."""
        log.info("the model %s is being fetched", pull.model)
        download = _Download(self._fetch, pull, self._idle)
        while not await download.ended(NEWS_INTERVAL):
            news = _news_of(pull.model, download.progress)
            if news is not None and news != pull.news and not pull.left_off.is_set():
                pull.news = news
                self._tell(news)
        return download.result()


class _Download:
    """One call of `Fetch` in a thread that does not keep the process from ending."""

    def __init__(self, fetch: Fetch, pull: _Pull, idle: asyncio.Event) -> None:
        """`idle` is cleared as long as the thread runs."""
        self.progress: Progress | None = None
        self._fetch = fetch
        self._pull = pull
        self._loop = asyncio.get_running_loop()
        self._idle = idle
        self._complete = False
        self._problem: Exception | None = None
        idle.clear()
        threading.Thread(target=self._run, name="underpaint-pull", daemon=True).start()

    async def ended(self, seconds: float) -> bool:
        """Whether it is over within so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)
        return self._idle.is_set()

    def result(self) -> bool:
        """What `Fetch` returned; raises what it raised."""
        if self._problem is not None:
            raise self._problem
        return self._complete

    def _run(self) -> None:
        try:
            self._complete = self._fetch(self._pull.model, self._take, self._pull.left_off)
        except Exception as problem:
            self._problem = problem
        with contextlib.suppress(RuntimeError):  # The loop is closed, and nobody waits any more.
            self._loop.call_soon_threadsafe(self._idle.set)

    def _take(self, progress: Progress) -> None:
        self.progress = progress


def _news_of(model: str, progress: Progress | None) -> Pulling | None:
    """Progress as it is told. All bytes may be there before they are checked: it is over only when that is said."""
    if progress is None:
        return None
    total = max(1, progress.total)
    left = progress.seconds_left
    return Pulling(model, min(progress.done, total - 1), total, None if left is None else min(max(left, 0.0), 1e9))
