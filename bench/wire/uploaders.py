"""Many clients in one process that send tiles as fast as they are taken, and do nothing else while the clock runs.

Every frame is built before, but for the 256 KiB that all tiles have in common; each tile is still another one, as its
last 16 bytes differ. Whoever is measured gets the same bytes from the same code.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

from underpaint_protocol.fields import DIGEST_SIZE
from underpaint_protocol.messages import Have, Hello, Missing, Tile, Welcome, vocabulary
from underpaint_protocol.tiles import TILE
from underpaint_protocol.vocabulary import FROM_SERVER
from websockets.utils import apply_mask

from .frames import BINARY, MASK, Frames, frame
from .line import upgrade

SIZE = TILE * TILE * 4
"""Bytes of a tile."""
OWN = 16
"""Bytes at the end of a tile that no other tile has."""

Pieces = tuple[bytes, bytes, bytes]
"""A frame: its beginning with the tile's name, the pixels that all have in common, and the rest."""


@dataclass(frozen=True)
class Load:
    """What is sent to `url`: `clients` times `tiles`, all distinct, and others for every `seed`."""

    url: str
    token: str
    clients: int
    tiles: int
    seed: str
    echo: bool = False
    """Whether everything comes back, instead of the answer that the daemon has it."""


@dataclass(frozen=True)
class Outcome:
    """Seconds from the first byte sent to the last answer, and bytes on the wire of all clients together."""

    seconds: float
    up: int
    down: int


def run(load: Load) -> Outcome:
    """Send a load; for a process of its own."""
    return asyncio.run(_run(load))


async def _run(load: Load) -> Outcome:
    loop = asyncio.get_running_loop()
    frames = TileFrames(load.seed)
    place = urlsplit(load.url)
    clients: list[Client] = []
    assert place.hostname is not None
    assert place.port is not None
    for number in range(load.clients):
        _, client = await loop.create_connection(Client, place.hostname, place.port)
        clients.append(client)
        await client.shake_hands(load)
        client.prepare([frames.tile(number * load.tiles + index) for index in range(load.tiles)])
    up, down = (sum(client.sent for client in clients), sum(client.received for client in clients))
    began = time.perf_counter()
    await asyncio.gather(*(client.echoed() if load.echo else client.stored() for client in clients))
    seconds = time.perf_counter() - began
    outcome = Outcome(
        seconds, sum(client.sent for client in clients) - up, sum(client.received for client in clients) - down
    )
    for client in clients:
        client.transport.abort()
    return outcome


class TileFrames:
    """Frames of tiles that differ in their last 16 bytes."""

    def __init__(self, seed: str) -> None:
        pixels = Random(seed).randbytes(SIZE - OWN)
        self._seed = seed
        self._hash = hashlib.sha256(pixels)
        whole = vocabulary.encode(Tile(bytes(16), SIZE, pixels + bytes(OWN)))
        self._from, self._to = whole.index(pixels), whole.index(pixels) + len(pixels)
        self._head, self._tail = whole[: self._from], whole[self._to + OWN :]
        framed = frame(whole)
        self._lead = framed[: len(framed) - len(whole)]
        self._common = apply_mask(whole, MASK)[self._from : self._to]

    def tile(self, number: int) -> tuple[bytes, Pieces]:
        """A tile's name and its frame."""
        own = hashlib.sha256(f"{self._seed}/{number}".encode()).digest()[:OWN]
        digest = self._hash.copy()
        digest.update(own)
        name = digest.digest()[:DIGEST_SIZE]
        head = self._head.replace(bytes(16), name)
        shift = self._to % 4
        tail = apply_mask(own + self._tail, MASK[shift:] + MASK[:shift])
        return name, (self._lead + apply_mask(head, MASK), self._common, tail)


class Client(asyncio.BufferedProtocol):
    """One connection. What comes is counted, and looked at only where somebody asked for it."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.sent = self.received = 0
        self._buffer = bytearray(1 << 20)
        self._listening = True
        self._heard = bytearray()
        self._frames = Frames()
        self._came = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._tiles: list[tuple[bytes, Pieces]] = []

    def prepare(self, tiles: list[tuple[bytes, Pieces]]) -> None:
        """These are to be sent."""
        self._tiles = tiles

    async def shake_hands(self, load: Load) -> None:
        """Open the websocket, and greet if there is a daemon."""
        self._write(upgrade(load.url, load.token))
        while b"\r\n\r\n" not in self._heard:
            await self._more()
        if not self._heard.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(self._heard.decode("latin-1"))
        self._heard.clear()
        if not load.echo:
            self._write(frame(vocabulary.encode(Hello("uploader"))))
            while not isinstance(await self._message(), Welcome):
                pass

    async def stored(self) -> None:
        """Ask what the daemon lacks, send it, and ask again until that is nothing."""
        names = tuple(name for name, _ in self._tiles)
        frames = dict(self._tiles)
        while missing := await self._missing(names):
            self._listening = False
            for name in missing:
                await self._send(frames[name])
            self._listening = True

    async def echoed(self) -> None:
        """Send everything, and wait until as much is back: a server's frames lack only the mask."""
        self._listening = False
        wanted = self.received + sum(sum(map(len, pieces)) - len(MASK) for _, pieces in self._tiles)
        for _, pieces in self._tiles:
            await self._send(pieces)
        while self.received < wanted:
            await self._more()

    async def _missing(self, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
        self._write(frame(vocabulary.encode(Have(1, names))))
        while not isinstance(answer := await self._message(), Missing):
            pass
        return answer.tiles

    async def _message(self) -> object:
        while True:
            for opcode, payload in self._taken():
                if opcode == BINARY:
                    return vocabulary.decode(payload, FROM_SERVER)
            await self._more()

    def _taken(self) -> Iterator[tuple[int, bytes]]:
        data = bytes(self._heard)
        self._heard.clear()
        return self._frames.feed(data)

    async def _send(self, pieces: Pieces) -> None:
        await self._writable.wait()
        self.sent += sum(map(len, pieces))
        self.transport.writelines(pieces)

    def _write(self, data: bytes) -> None:
        self.sent += len(data)
        self.transport.write(data)

    async def _more(self) -> None:
        self._came.clear()
        await self._came.wait()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes
        if self._listening:
            self._heard += self._buffer[:nbytes]
        self._came.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
