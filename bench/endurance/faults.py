"""What can go wrong, each as one function that makes it go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from random import Random

import psutil  # type: ignore[import-untyped]
from underpaint_backend.launch import Launched, launch

from .clients import ClientProcess
from .journal import Journal
from .proxy import Link, Proxy

STALL_SECONDS = 2
"""What the daemon is told: how long a client may leave unread what is sent to it."""


class Site:
    """One daemon with its worker, its journal, its clients and the network between them, and all that befalls them."""

    def __init__(self, daemon: Launched, words: list[str], proxy: Proxy, journal: Journal) -> None:
        """`words` are those with which the daemon was started and is started again."""
        self.daemon = daemon
        self.clients: list[ClientProcess] = []
        self.done: Counter[str] = Counter()
        """Faults by their names."""
        self._words = words
        self._proxy = proxy
        self._journal = journal
        self._rng = Random()
        self._lasting: set[asyncio.Task[None]] = set()
        self._filling = asyncio.Lock()
        self._killed_in_start = False

    async def strike(self, seed: str) -> None:
        """Let one fault happen, chosen by `seed` among those that are possible just now."""
        self._rng = Random(seed)
        while True:
            (name,) = self._rng.choices(list(FAULTS), [weight for weight, _ in FAULTS.values()])
            if await FAULTS[name][1](self):
                self.done[name] += 1
                return

    async def calm_down(self) -> None:
        """Wait until all that lasts is over."""
        await asyncio.gather(*self._lasting)

    # Processes

    async def kill_worker(self) -> bool:
        """SIGKILL the worker; one that is starting at most once in a row, since the third death in a row is final."""
        starting = not _worker_is_ready(self.daemon.log)
        if starting and self._killed_in_start:
            return False
        for child in psutil.Process(self.daemon.process.pid).children():
            child.kill()
            self._killed_in_start = starting
            return True
        return False

    async def kill_daemon(self) -> bool:
        """SIGKILL the daemon, and start it again on the same port and home."""
        self.daemon.process.kill()
        return await self._restart()

    async def stop_daemon(self) -> bool:
        """Ask the daemon to end, as whoever updates it does, and start it again."""
        self.daemon.process.send_signal(signal.SIGTERM)
        return await self._restart()

    async def _restart(self) -> bool:
        await asyncio.to_thread(self.daemon.process.wait, 30)
        await asyncio.sleep(self._rng.choice((0.0, 0.3)))
        port = int(self.daemon.url.rpartition(":")[2])
        self.daemon = await asyncio.to_thread(launch, self.daemon.home, *self._words, port=port)
        self._killed_in_start = False
        return True

    async def kill_client(self) -> bool:
        """SIGKILL a client, and start it again."""
        client = self._any_client()
        if client is None:
            return False
        client.kill()
        self._last(self._start_later(client, self._rng.choice((0.0, 0.5, 2.0))))
        return True

    async def _start_later(self, client: ClientProcess, seconds: float) -> None:
        await asyncio.sleep(seconds)
        client.start()

    async def stall_reader(self) -> bool:
        """Let a client stop reading for longer than the daemon bears, and have much to read."""
        client = self._any_client()
        if client is None:
            return False
        client.send(signal.SIGURG)  # harmless to one that does not listen for it yet
        return True

    async def freeze_client(self) -> bool:
        """Let a client stand still, as a machine that is put to sleep does."""
        client = self._any_client()
        if client is None:
            return False
        self._last(self._freeze(client, self._rng.uniform(0.5, 4.0)))
        return True

    async def _freeze(self, client: ClientProcess, seconds: float) -> None:
        client.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        client.send(signal.SIGCONT)

    # The network

    async def cut(self) -> bool:
        """End a connection inside a frame."""
        return self._on_link(lambda link: link.cut(self._rng))

    async def silence(self) -> bool:
        """Let a connection fall silent while both sides believe in it."""
        lasting = self._rng.random() < 0.7
        return self._on_link(lambda link: link.fall_silent(self._rng.uniform(1.0, 8.0), lasting))

    async def delay(self) -> bool:
        """Let all that passes through a connection come late."""
        return self._on_link(lambda link: link.delay(self._rng, self._rng.uniform(0.5, 3.0)))

    async def reorder(self) -> bool:
        """Hold all connections, and serve them in another order."""
        if len(self._proxy.links) < 2:
            return False
        self._last(self._proxy.shuffle(self._rng, self._rng.uniform(0.1, 0.5)))
        return True

    def _on_link(self, effect: Callable[[Link], Coroutine[None, None, None]]) -> bool:
        if not self._proxy.links:
            return False
        self._last(effect(self._rng.choice(self._proxy.links)))
        return True

    # The disk

    async def fill_journal(self) -> bool:
        """Use up the journal's quota for a while: so far that no job is accepted, or wholly."""
        if self._filling.locked():
            return False
        self._last(self._fill(self._rng.random() < 0.5, self._rng.uniform(0.5, 3.0)))
        return True

    async def _fill(self, wholly: bool, seconds: float) -> None:
        async with self._filling:
            with contextlib.suppress(sqlite3.OperationalError):  # it was locked for long; there will be another time
                await asyncio.to_thread(self._journal.fill, wholly)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self._journal.empty)

    # What all have in common

    def _last(self, effect: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(effect)
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)

    def _any_client(self) -> ClientProcess | None:
        alive = [client for client in self.clients if client.lives]
        return self._rng.choice(alive) if alive else None


FAULTS: dict[str, tuple[int, Callable[[Site], Awaitable[bool]]]] = {
    "worker killed": (6, Site.kill_worker),
    "daemon killed": (6, Site.kill_daemon),
    "daemon stopped": (1, Site.stop_daemon),
    "client killed": (17, Site.kill_client),
    "client frozen": (5, Site.freeze_client),
    "reader stalled": (7, Site.stall_reader),
    "connection cut": (23, Site.cut),
    "connection silent": (10, Site.silence),
    "connection delayed": (12, Site.delay),
    "connections reordered": (8, Site.reorder),
    "journal full": (5, Site.fill_journal),
}
"""By name: how often each is chosen, in percent, and what it does. Those are rare after which a worker has to start."""


def _worker_is_ready(log: Path) -> bool:
    text = log.read_text(errors="replace")
    return text.rfind("worker: ready on") > text.rfind("the worker starts as process")
