"""A TCP proxy between clients and the daemon that is as bad as a network can be.

It never changes or reorders the bytes inside one connection: TCP does not either. It ends connections inside a frame,
lets them fall silent while both sides believe in them, delays them, and serves them in another order.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from random import Random

CHUNK = 16 << 10
"""Bytes that are passed on at once; most tiles are larger."""
BUFFER = 16 << 10
"""Bytes that the system holds for the proxy, few, so that a client that does not read is soon felt by the daemon."""


class Pump:
    """One direction of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pause = 0.0
        """Seconds that each chunk waits."""
        self.open = asyncio.Event()
        """While this is clear, nothing is passed on."""
        self.open.set()
        self.cut_at: float | None = None
        """The share of the next chunk that is passed on before the connection is cut."""
        self._reader = reader
        self._writer = writer

    async def run(self) -> None:
        """Pass on bytes until a side ends, or the connection is cut."""
        while chunk := await self._reader.read(CHUNK):
            await asyncio.sleep(self.pause)
            await self.open.wait()
            if self.cut_at is not None:
                self._writer.write(chunk[: int(len(chunk) * self.cut_at)])
                return
            self._writer.write(chunk)
            await self._writer.drain()


class Link:
    """One connection through the proxy."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.pumps = (Pump(client[0], server[1]), Pump(server[0], client[1]))
        self._writers = (client[1], server[1])
        self._reset = False

    async def run(self) -> None:
        """Serve both directions until one ends."""
        tasks = [asyncio.create_task(pump.run()) for pump in self.pumps]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._end()

    async def cut(self, rng: Random, patience: float = 1.0) -> None:
        """End it inside a chunk of one direction, or after `patience` seconds if none comes."""
        self._reset = rng.random() < 0.5
        rng.choice(self.pumps).cut_at = rng.random()
        await asyncio.sleep(patience)
        self._end()

    async def fall_silent(self, seconds: float, lasting: bool) -> None:
        """Pass on nothing for a while; if that is `lasting`, the connection is gone afterwards."""
        self.hold()
        await asyncio.sleep(seconds)
        if lasting:
            self._end()
        self.release()

    async def delay(self, rng: Random, seconds: float) -> None:
        """Let every chunk wait, for a while."""
        for pump in self.pumps:
            pump.pause = rng.uniform(0.005, 0.1)
        await asyncio.sleep(seconds)
        for pump in self.pumps:
            pump.pause = 0.0

    def hold(self) -> None:
        """Pass on nothing until `release`."""
        for pump in self.pumps:
            pump.open.clear()

    def release(self) -> None:
        """Pass on what comes."""
        for pump in self.pumps:
            pump.open.set()

    def _end(self) -> None:
        """Close both sides: with a reset, or as if the other program had ended."""
        for writer in self._writers:
            side = writer.get_extra_info("socket")
            if self._reset and side is not None:
                with contextlib.suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """Listens on a port of its own and passes connections on to the daemon's, whichever daemon has that just now."""

    def __init__(self, port: int) -> None:
        self.links: list[Link] = []
        self._port = port

    async def start(self) -> asyncio.Server:
        """Listen; the server is to be closed at the end."""
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return await asyncio.start_server(self._serve, sock=listener, limit=CHUNK)

    async def shuffle(self, rng: Random, seconds: float) -> None:
        """Hold all connections for a while and serve them in another order."""
        links = rng.sample(self.links, len(self.links))
        for link in links:
            link.hold()
        await asyncio.sleep(seconds)
        for link in links:
            link.release()
            await asyncio.sleep(0.02)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = Link((reader, writer), server)
        self.links.append(link)
        try:
            with contextlib.suppress(OSError):
                await link.run()
        finally:
            self.links.remove(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        side = socket.socket()
        side.setblocking(False)
        side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        try:
            await asyncio.get_running_loop().sock_connect(side, ("127.0.0.1", self._port))
        except BaseException:
            side.close()
            raise
        return await asyncio.open_connection(sock=side, limit=CHUNK)
