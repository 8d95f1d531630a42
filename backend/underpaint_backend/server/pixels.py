"""The pixels of jobs: tiles go into the store and come out in threads, and those that jobs need are held there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from underpaint_protocol.encodings import decode, encode
from underpaint_protocol.exceptions import TileError
from underpaint_protocol.messages import Image, Request, Result, Tile
from underpaint_protocol.tiles import cells

from .farewells import Return
from .sessions import Job
from .shares import Shares
from .tiles import BadTile, TileStore

T = TypeVar("T")

THREADS = 4
"""Tiles that are hashed, packed, read and written at the same time."""


class MissingTile(Exception):
    """A tile that a job needs is not in the store any more."""


@dataclass(frozen=True)
class Found:
    """How much of some pictures was here when somebody looked."""

    missing: list[bytes]
    """Tiles that are not here, each once."""
    fit: bool
    """Whether each tile that is here is as large as its place."""
    needs: dict[bytes, int]
    """How many slots of the store each tile takes."""


class Pixels:
    """A store of tiles, as the event loop uses it."""

    def __init__(self, store: TileStore) -> None:
        self.shares = Shares()
        """What jobs need that have not ended, with the room for their pictures."""
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS, "tiles")
        self._coming: SimpleQueue[tuple[Tile, Callable[[Exception | None], None]] | None] = SimpleQueue()
        self._takers: list[Thread] = []
        """An executor's future for each tile costs the event loop more than all else that it does for the tile."""

    async def open(self) -> None:
        """Find what is there. Raises `OSError` if the folder cannot be used."""
        await self._in_thread(self._store.open)
        self._takers = [Thread(target=self._store_what_comes, daemon=True) for _ in range(THREADS)]
        for taker in self._takers:
            taker.start()

    def close(self) -> None:
        """End the threads, and let go of the files."""
        for _ in self._takers:
            self._coming.put(None)
        for taker in self._takers:
            taker.join()
        self._threads.shutdown()
        self._store.close()

    # Tiles

    def missing(self, names: Iterable[bytes]) -> list[bytes]:
        """Those of `names` that are not here, each once."""
        return self._store.missing(names)

    async def look(self, images: Iterable[Image]) -> Found:
        """What is here of these pictures. That may have changed by the time that this returns."""
        return await self._in_thread(self._look, tuple(images))

    async def store(self, tile: Tile) -> None:
        """Keep a tile. Raises `TileError` if it is damaged, and `StoreFull`."""
        await self._in_thread(self._unpack, tile)

    def store_soon(self, tile: Tile, ended: Callable[[Exception | None], None]) -> None:
        """The same, for who has something else to do meanwhile; `ended` is told in a thread what was raised, if any."""
        self._coming.put((tile, ended))

    async def packed(self, name: bytes, encoding: str) -> Tile | None:
        """A tile as it is sent; None if it is not here any more."""
        return await self._in_thread(self._pack, name, encoding)

    # Room

    @property
    def slots(self) -> int:
        """Of how many slots the store is."""
        return self._store.slots

    def shortage(self, needs: Mapping[bytes, int], pictures: int, instead_of: Job | None = None) -> int:
        """How many slots too few there are for these tiles and so many more, beside what jobs need and make.

        What the job `instead_of` would still make is never made.
        """
        coming = sum(job.slots_to_come for job in self.shares if job is not instead_of)
        return self._store.shortage(needs, coming + pictures)

    def shortage_for(self, tile: Tile) -> int:
        """How many slots too few there are for a tile now, whatever jobs will make."""
        return self._store.shortage({tile.name: self._store.slots_for(tile.size)})

    def return_of(self, needed: Container[bytes] = ()) -> Return:
        """A reckoning of what comes back if results go; of tiles that are `needed` all the same nothing does."""
        return Return(self._store.pinned, needed)

    def slots_of_results(self, request: Request) -> int:
        """How many slots the pictures take that are made for a request."""
        x, y, depth = (0, 0, 8) if request.image is None else (request.image.x, request.image.y, request.image.depth)
        widths = Counter(cell.area for cell in cells(x, 0, request.width, 1))
        heights = Counter(cell.area for cell in cells(0, y, 1, request.height))
        counts = ((times * more, width * height) for width, times in widths.items() for height, more in heights.items())
        return request.batch * sum(times * self._store.slots_for(area * 4 * depth // 8) for times, area in counts)

    # What jobs need

    def hold_request(self, job: Job) -> None:
        """Keep the tiles of the job's request until they are released, and count on the room for its pictures.

        Raises `MissingTile`, and keeps none then.
        """
        try:
            needs = self._store.pin(job.tiles)
        except KeyError:
            raise MissingTile from None
        job.request_pins = tuple(needs)
        job.slots_of_all_results = self.slots_of_results(job.submit.request)
        self.shares.add(job, needs)

    def release_request(self, job: Job) -> None:
        """No worker needs the tiles of the job's request any more. Twice does no harm."""
        self._store.unpin(job.request_pins)
        job.request_pins = ()
        self.shares.remove(job)

    async def of_request(self, job: Job) -> AsyncIterator[Tile]:
        """The tiles that the job's request names, raw. Raises `MissingTile` if one is gone or damaged."""
        for name in job.tiles:
            tile = await self.packed(name, "raw")
            if tile is None:
                raise MissingTile
            yield tile

    async def hold_result(self, job: Job, tile: Tile) -> None:
        """Keep a tile of a result until the job's are released. Raises `StoreFull`.

        A worker that takes over from a dead one brings those once more that are held already.
        """
        while tile.name not in job.result_pins:
            await self.store(tile)
            try:
                self._store.pin((tile.name,))
            except KeyError:
                continue  # It was evicted between the two.
            self._hold(job, tile.name, len(tile.data))

    def hold_again(self, job: Job, result: Result) -> None:
        """Keep what an earlier daemon stored of a result; whoever fetches what is gone is told so."""
        for name in set(result.image.tiles) - job.result_pins:
            with suppress(KeyError):
                self._store.pin((name,))
                self._hold(job, name, self._store.size_of(name) or 0)

    def _hold(self, job: Job, name: bytes, size: int) -> None:
        job.result_pins.add(name)
        job.slots_of_results += self._store.slots_for(size)

    def release_results(self, job: Job) -> None:
        """Nobody needs the job's results any more."""
        for name in job.result_pins:
            self._store.unpin((name,))
        job.result_pins.clear()
        job.slots_of_results = 0

    # In threads

    def _look(self, images: Iterable[Image]) -> Found:
        places = [place for image in images for place in image.tile_sizes]
        return Found(
            missing=self._store.missing(name for name, _ in places),
            fit=all(self._store.size_of(name) in (size, None) for name, size in places),
            needs={name: self._store.slots_for(size) for name, size in places},
        )

    def _store_what_comes(self) -> None:
        while (coming := self._coming.get()) is not None:
            tile, ended = coming
            error = None
            try:
                self._unpack(tile)
            except Exception as problem:
                error = problem
            del tile, coming  # The next one may be a long time coming.
            ended(error)

    def _unpack(self, tile: Tile) -> None:
        if self._store.size_of(tile.name) is not None:
            return
        base = None if tile.base is None else self._store.read(tile.base)
        if tile.base is not None and base is None:
            return  # What it is the difference to is gone; the submit that needs it asks for the whole tile.
        try:
            self._store.put(tile.name, decode(tile.encoding, tile.data, tile.size, base))
        except BadTile as bad:
            raise TileError(str(bad)) from None

    def _pack(self, name: bytes, encoding: str) -> Tile | None:
        data = self._store.read(name)
        if data is None:
            return None
        packed = encode(encoding, data)
        return Tile(name, len(data), packed, encoding) if len(packed) < len(data) else Tile(name, len(data), data)

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
