"""The server process as a whole: it listens, keeps a host and a queue, and ends cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from underpaint_protocol.locations import DEFAULT_PORT
from underpaint_protocol.messages import MAX_FRAME, SUBPROTOCOL, Limits, Status, Worker
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from .connection import Connection
from .handshake import Gate
from .hosts import Host
from .queue import JobQueue

log = logging.getLogger(__name__)

LIMITS = Limits(max_pixels=16 << 20, max_jobs=64, max_batch=8, max_blob_bytes=256 << 20)


@dataclass(frozen=True)
class Options:
    """Where to listen, whom to let in, and what each client may ask for."""

    gate: Gate
    address: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tls: ssl.SSLContext | None = None
    limits: Limits = field(default=LIMITS)


class Daemon:
    """Serves clients with one host."""

    def __init__(self, host: Host, options: Options) -> None:
        self._host = host
        self._options = options
        self._queue = JobQueue(host)
        self._connections: set[Connection] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Server]:
        """Listen until the context is left; then clients are told, jobs end, and the worker is gone.

        Raises `OSError` if the address cannot be used.
        """
        options = self._options
        async with serve(
            self._serve,
            options.address,
            options.port,
            ssl=options.tls,
            process_request=options.gate.process_request,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=MAX_FRAME,
            close_timeout=1,
            server_header=None,
        ) as server:
            worker = asyncio.create_task(self._queue.work())
            await self._host.start(self._tell)
            try:
                yield server
            finally:
                self._queue.shut_down()
                worker.cancel()
                await asyncio.gather(worker, self._host.close(), self._say_goodbye(), return_exceptions=True)

    def url(self, server: Server) -> str:
        """The address under which clients reach `server`."""
        address, port = next(iter(server.sockets)).getsockname()[:2]
        scheme = "wss" if self._options.tls else "ws"
        return f"{scheme}://{f'[{address}]' if ':' in address else address}:{port}"

    async def _serve(self, socket: ServerConnection) -> None:
        connection = Connection(socket, self._host, self._queue, self._options.limits)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    async def _say_goodbye(self) -> None:
        """Give clients that read a moment to hear how their jobs ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(*(connection.outbox.drained() for connection in self._connections))

    def _tell(self, worker: Worker) -> None:
        for connection in self._connections:
            connection.announce(Status(worker))


async def serve_until_signal(daemon: Daemon, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_listening` hears the address once clients can connect.

    Raises `OSError` if the address cannot be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    async with daemon.listening() as server:
        on_listening(daemon.url(server))
        await stop.wait()
        log.info("stopping")
