"""The server process as a whole: it listens, keeps a host and a queue, and ends cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import cast

from underpaint_protocol.errors import describe
from underpaint_protocol.locations import DEFAULT_PORT, data_folder
from underpaint_protocol.messages import MAX_FRAME, REVOKED, SUBPROTOCOL, Limits, Models, Pulling, Status, Worker
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from .access.handshake import Gate, Refusal, owner_of, refuse_with
from .access.owners import Owner
from .book import Book, Keep
from .connection import Connection, House
from .hosts import Host
from .journal import Journal
from .memory import keep_in_shape, tidy
from .pulls import Pulls
from .queue import JobQueue
from .tiles import TileStore

log = logging.getLogger(__name__)

MAX_BATCH = 8
STALL_SECONDS = 30
"""Seconds that a client may leave what is sent to it unread."""
OPEN_TIMEOUT = 10.0
"""Seconds until the handshake of a websocket, TLS and all, must be finished."""
PING_INTERVAL = 20.0
"""Seconds between pings, which keep idle proxies from closing the connection."""
CHORES_INTERVAL = 5.0
"""Seconds between two looks at what has grown too old, and at tokens that were taken back."""
CATCH_UP_INTERVAL = 0.5
"""Seconds between two tries to write down what the journal did not take."""
RESTARTING = 1012
"""Close code of RFC 6455's registry: the service restarts, and clients may come again."""


@dataclass(frozen=True)
class Options:
    """Where to listen, whom to let in, and what is kept for how long.

    `home` is the folder of the journal and the tiles. `keep_bytes` bounds the tiles on the disk, `journal_bytes` the
    journal; `drain_seconds` is how long jobs may go on when the daemon is stopped.
    """

    gate: Gate
    address: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tls: ssl.SSLContext | None = None
    home: Path = field(default_factory=data_folder)
    keep_seconds: int = 24 * 3600
    keep_bytes: int = 4 << 30
    journal_bytes: int = 1 << 30
    drain_seconds: float = 10.0
    stall_seconds: int = STALL_SECONDS
    log_prompts: bool = False


class Daemon:
    """Serves clients with one host."""

    def __init__(self, host: Host, options: Options) -> None:
        self._host = host
        self._options = options
        journal = Journal(options.home / "journal.sqlite", options.journal_bytes)
        store = TileStore(options.home / "tiles", options.keep_bytes)
        self._book = Book(journal, store, Keep(options.keep_seconds, min(Keep.bytes_each, options.journal_bytes // 4)))
        self._queue = JobQueue(host, self._book)
        self._pulls = Pulls(host.fetch, self._tell_pulling, self._look_at_models)
        self._house = House(host, self._queue, self._book, self._pulls, options.log_prompts)
        self._models = host.models()
        """As clients know them."""
        self._look_now = asyncio.Event()
        """What fits is known only once the worker is there, and whoever connects may have changed a folder before."""
        self._connections: set[Connection] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Server]:
        """Listen until the context is left; then what runs may end, clients are told, and the worker is gone.

        Raises `OSError` if the address or the folder cannot be used.
        """
        options = self._options
        keep_in_shape()
        logging.getLogger("websockets.server").addFilter(_no_stumble)
        waiting = await self._book.open()
        try:
            async with serve(
                self._serve,
                options.address,
                options.port,
                ssl=options.tls,
                process_request=self._process_request,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=MAX_FRAME,
                max_queue=4,
                open_timeout=OPEN_TIMEOUT,
                ping_interval=PING_INTERVAL,
                close_timeout=1,
                server_header=None,
            ) as server:
                for job in waiting:
                    await self._queue.add(job)
                chores = (
                    self._queue.work(),
                    self._pulls.work(),
                    self._do_chores(),
                    self._catch_up(),
                    self._watch_models(),
                )
                tasks = [asyncio.create_task(chore) for chore in chores]
                await self._host.start(self._tell)
                try:
                    yield server
                finally:
                    await self._wind_down(tasks)
        finally:
            await self._book.close()

    def hurry(self) -> None:
        """Do not wait for jobs that run; they go on at the next start."""
        self._queue.hurry()

    def url(self, server: Server) -> str:
        """The address under which clients reach `server`."""
        address, port = next(iter(server.sockets)).getsockname()[:2]
        scheme = "wss" if self._options.tls else "ws"
        return f"{scheme}://{f'[{address}]' if ':' in address else address}:{port}"

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """The gate's own conditions, and those that only the daemon knows of."""
        response = await self._options.gate.process_request(connection, request)
        if response is not None:
            return response
        owner = owner_of(connection)
        if self._queue.draining:
            refusal = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, describe("shutting_down"), 5)
            return refuse_with(connection, refusal)
        if sum(other.owner == owner.name for other in self._connections) >= owner.allowance.connections:
            error = describe("too_many_connections", detail=owner.allowance.connections)
            return refuse_with(connection, Refusal(HTTPStatus.TOO_MANY_REQUESTS, error, 60))
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        owner = owner_of(socket)
        connection = Connection(socket, owner, self._limits(owner), self._house)
        self._connections.add(connection)
        self._look_now.set()
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    def _limits(self, owner: Owner) -> Limits:
        allowance = owner.allowance
        return Limits(
            max_pixels=allowance.pixels,
            max_jobs=allowance.jobs,
            max_batch=MAX_BATCH,
            max_tile_bytes=allowance.tile_bytes,
            keep_seconds=self._options.keep_seconds,
            stall_seconds=self._options.stall_seconds,
            work_per_day=allowance.work_per_day,
        )

    async def _wind_down(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        self._queue.draining = True
        for connection in self._connections:
            connection.announce(Status(self._host.worker, draining=True))
        await asyncio.gather(self._queue.drain(self._options.drain_seconds), self._pulls.close())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(self._host.close(), self._say_goodbye(), return_exceptions=True)

    async def _say_goodbye(self) -> None:
        """Give clients that read a moment to hear how their jobs stand, and close."""
        connections = list(self._connections)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(*(connection.outbox.drained() for connection in connections))
        closing = [connection.close(RESTARTING, "the daemon is being stopped") for connection in connections]
        await asyncio.gather(*closing, return_exceptions=True)

    async def _do_chores(self) -> None:
        while True:
            await asyncio.sleep(CHORES_INTERVAL)
            for chore in (self._keep_books, self._see_revoked_tokens_off, partial(asyncio.to_thread, tidy)):
                try:
                    await chore()
                except Exception:  # one that fails must not keep the others from being done
                    log.exception("a chore failed")

    async def _keep_books(self) -> None:
        self._book.expire()

    async def _catch_up(self) -> None:
        """What waits for a journal that was full or locked goes on soon after there is room."""
        while True:
            await asyncio.sleep(CATCH_UP_INTERVAL)
            try:
                await self._book.catch_up()
            except Exception:
                log.exception("what waits for the journal could not be written down")

    async def _see_revoked_tokens_off(self) -> None:
        """Nobody stays whose token was taken back, also if its name was given again. Jobs go on: a file that somebody
        damaged, and mends, must not cost anybody a picture."""
        digests = self._options.gate.tokens.digests()
        for connection in [other for other in self._connections if other.digest not in digests]:
            await connection.close(REVOKED, "the token was taken back")

    async def _watch_models(self) -> None:
        """Notice soon when a folder of models changes, and at once when the worker says how much memory there is."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), CHORES_INTERVAL)
            self._look_now.clear()
            try:
                await self._look_at_models()
            except Exception:
                log.exception("the models could not be looked at")

    async def _look_at_models(self) -> None:
        """Tell everybody what can be run here, if that changed."""
        await self._host.refresh()
        models = self._host.models()
        if models != self._models:
            self._models = models
            for connection in self._connections:
                connection.announce(Models(models))

    def _tell_pulling(self, pulling: Pulling) -> None:
        for connection in self._connections:
            if connection.may_fetch:
                connection.announce(pulling)

    def _tell(self, worker: Worker) -> None:
        for connection in self._connections:
            connection.announce(Status(worker, draining=self._queue.draining))
        if worker.state == "ready":
            self._look_now.set()


async def serve_until_signal(daemon: Daemon, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_listening` hears the address once clients can connect.

    A second signal does not wait for running jobs.

    Raises `OSError` if the address cannot be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled() -> None:
        if stop.is_set():
            daemon.hurry()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, signalled)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(signalled))
    async with daemon.listening() as server:
        on_listening(daemon.url(server))
        await stop.wait()
        log.info("stopping")


def _no_stumble(record: logging.LogRecord) -> bool:
    """A filter for the log: where it is the client that breaks the rules, one line says so.

    The websockets library says twice that it sends no more, and stumbles over that, if what breaks them comes right
    behind a request that is refused. All its other errors stay what they are.
    """
    if record.exc_info and isinstance(record.exc_info[1], AssertionError) and _innermost(record.exc_info) == "send_eof":
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        record.msg, record.args, record.exc_info = "a client broke the rules of websockets", (), None
    return True


def _innermost(raised: tuple[object, ...]) -> str:
    """The name of the function in which something was raised."""
    return traceback.extract_tb(cast("TracebackType | None", raised[2]))[-1].name
