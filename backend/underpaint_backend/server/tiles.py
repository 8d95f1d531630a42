"""The pixels that clients sent, as tiles on disk, each named by its content.

A tile is up to 512 KiB of raw pixels, and its name is a hash of them. It lies in one slot of a file, or in two. What
was used least recently goes when all slots are taken; what is pinned stays.

What is where lies in memory too, and its lock is never held while the disk is touched or content is hashed: `missing`,
`size_of`, `shortage`, `pinned`, `pin` and `unpin` are called on the event loop, which must not wait for a disk. A name
whose tile is written at this moment is *busy*: it is not here yet, and whoever wants to write it too waits until that
is settled.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from underpaint_protocol.tiles import name_of

from .slots import SLOT, Slots

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StoreFull(Exception):
    """There is no room: everything that is left is pinned."""


class DiskFull(StoreFull):
    """The store has room, and the disk takes no more of it."""


class BadTile(Exception):
    """The content of a tile does not match its name."""


@dataclass(frozen=True, eq=False, slots=True)
class _Tile:
    """A tile that is on disk. Equal only to itself: a tile that was evicted and sent again is another one."""

    size: int
    slots: tuple[int, ...]


class TileStore:
    """Tiles in a folder, in as many slots of `slot` bytes as `max_bytes` are; slots, not pixels, count as bytes.

    After `open`, all methods may be called from any thread.
    """

    def __init__(self, folder: Path, max_bytes: int, slot: int = SLOT) -> None:
        self._disk = Slots(folder, slot)
        self._count = max_bytes // slot
        self._free: list[int] = []  # taken from the end
        self._loose: OrderedDict[bytes, _Tile] = OrderedDict()  # least recently used first
        self._pinned: dict[bytes, _Tile] = {}
        self._pins: Counter[bytes] = Counter()  # of damaged tiles too: they are pinned again when they are sent again
        self._busy: set[bytes] = set()
        self._pinned_slots = 0
        self._settled = threading.Condition()

    def open(self) -> None:
        """Find what an earlier daemon left and still fits; this reads the index, not the tiles.

        Raises `OSError` if the files cannot be made or read.
        """
        found = self._disk.open(self._count)
        taken = {slot for tile in found for slot in tile.slots}
        with self._settled:
            self._loose = OrderedDict((tile.name, _Tile(tile.size, tile.slots)) for tile in found)
            self._free = [slot for slot in reversed(range(self._count)) if slot not in taken]

    def close(self) -> None:
        """Let go of the files; nobody may be reading or writing."""
        self._disk.close()

    def missing(self, names: Iterable[bytes]) -> list[bytes]:
        """Those of `names` that are not here, each once and in order; the others count as used. Memory only."""
        wanted = dict.fromkeys(names)
        with self._settled:
            return [name for name in wanted if self._use(name) is None]

    def size_of(self, name: bytes) -> int | None:
        """Bytes of a tile; None if it is not here. Memory only."""
        with self._settled:
            tile = self._get(name)
        return None if tile is None else tile.size

    def slots_for(self, size: int) -> int:
        """How many slots a tile of so many bytes takes."""
        return self._disk.needed(size)

    def shortage(self, needs: Mapping[bytes, int], more: int = 0) -> int:
        """How many slots too few there are for tiles that need so many each, beside the pinned ones and `more` slots.

        None are if it is 0 or less. Memory only.
        """
        with self._settled:
            wanted = sum(slots for name, slots in needs.items() if name not in self._pinned)
            return self._pinned_slots + wanted + more - self._count

    def put(self, name: bytes, data: bytes) -> None:
        """Write a tile, for which others may have to go. What is here already is neither hashed nor written.

        Blocks. Raises `BadTile` if `data` does not match `name`, `StoreFull` if no room can be made, and `DiskFull` if
        the disk does not take it; nothing of it is left then.
        """
        if not self._claim(name):
            return
        slots: tuple[int, ...] = ()
        tile = None
        try:
            if name_of(data) != name:
                raise BadTile(f"the content of {name.hex()} does not match its name")
            slots = self._take(self._disk.needed(len(data)))
            while True:
                try:
                    self._disk.write(slots, name, data)
                    break
                except OSError as error:
                    slots = self._exchange(slots, evict=error.errno in FULL)
                    if not slots:
                        raise DiskFull(f"a tile of {len(data)} bytes cannot be written: {error}") from error
            tile = _Tile(len(data), slots)
        finally:
            self._settle(name, tile, slots)

    def read(self, name: bytes) -> bytes | None:
        """The pixels of a tile; None if it is not here, which a damaged or vanished file is not either. Blocks."""
        with self._settled:
            tile = self._use(name)
        if tile is None:
            return None
        data = self._load(name, tile)
        if data is None:
            self._forget(name, tile)
        return data

    def pinned(self, names: Iterable[bytes]) -> dict[bytes, tuple[int, int]]:
        """Of those of `names` that are here and pinned: how often, and how many slots each takes. Memory only."""
        with self._settled:
            return {name: (self._pins[name], len(self._pinned[name].slots)) for name in names if name in self._pinned}

    def pin(self, names: Iterable[bytes]) -> dict[bytes, int]:
        """Keep tiles until they are unpinned as often as pinned; a name counts once per call. Memory only.

        Returns how many slots each takes. Raises `KeyError` with the first name that is not here, without pinning any.
        """
        wanted = dict.fromkeys(names)
        with self._settled:
            for name in wanted:
                if self._get(name) is None:
                    raise KeyError(name)
            for name in wanted:
                self._pins[name] += 1
                if self._pins[name] == 1:
                    self._insert(name, self._loose.pop(name))
            return {name: len(self._pinned[name].slots) for name in wanted}

    def unpin(self, names: Iterable[bytes]) -> None:
        """Undo one `pin` of these names; the tiles count as used. Memory only.

        Raises `KeyError` with the first name that is not pinned, and unpins nothing then.
        """
        wanted = dict.fromkeys(names)
        with self._settled:
            for name in wanted:
                if name not in self._pins:
                    raise KeyError(name)
            for name in wanted:
                self._unpin(name)

    # What is where. Whoever calls these holds the lock.

    def _get(self, name: bytes) -> _Tile | None:
        return self._loose.get(name) or self._pinned.get(name)

    def _use(self, name: bytes) -> _Tile | None:
        if name in self._loose:
            self._loose.move_to_end(name)
        return self._get(name)

    def _insert(self, name: bytes, tile: _Tile) -> None:
        if name in self._pins:
            self._pinned[name] = tile
            self._pinned_slots += len(tile.slots)
        else:
            self._loose[name] = tile

    def _remove(self, name: bytes) -> _Tile:
        tile = self._loose.pop(name, None)
        if tile is None:
            tile = self._pinned.pop(name)
            self._pinned_slots -= len(tile.slots)
        return tile

    def _unpin(self, name: bytes) -> None:
        self._pins[name] -= 1
        if not self._pins[name]:
            del self._pins[name]
            if name in self._pinned:
                self._insert(name, self._remove(name))

    # Between memory and the disk. Whoever calls these does not hold the lock.

    def _claim(self, name: bytes) -> bool:
        """Make a name busy; false if its tile is here, maybe because another thread has just written it."""
        with self._settled:
            self._settled.wait_for(lambda: name not in self._busy)
            if self._use(name) is not None:
                return False
            self._busy.add(name)
            return True

    def _settle(self, name: bytes, tile: _Tile | None, slots: tuple[int, ...]) -> None:
        """A busy name is busy no more: its tile is here, or its slots are free again."""
        with self._settled:
            self._busy.discard(name)
            if tile is None:
                self._free.extend(slots)
            else:
                self._insert(name, tile)
            self._settled.notify_all()

    def _take(self, needed: int) -> tuple[int, ...]:
        """Slots for a tile, for which others are forgotten. Raises `StoreFull`.

        Waits while all that could go is being written. That has its slots and waits for nobody, so this ends.
        """
        with self._settled:
            while len(self._free) < needed:
                if self._pinned_slots + needed > self._count:
                    raise StoreFull(f"{self.pinned_bytes} of {self.max_bytes} bytes are pinned")
                if self._loose:
                    _, tile = self._loose.popitem(last=False)
                    self._free.extend(tile.slots)
                else:
                    self._settled.wait()
            return tuple(self._free.pop() for _ in range(needed))

    def _exchange(self, slots: tuple[int, ...], *, evict: bool) -> tuple[int, ...]:
        """Free `slots`, into which nothing could be written, and take others: those of tiles that nobody needs.

        For these the disk has room already. () if there are none left, or if they are not to be evicted.
        """
        with self._settled:
            self._free[:0] = slots
            taken: list[int] = []
            while evict and self._loose and len(taken) < len(slots):
                _, tile = self._loose.popitem(last=False)
                taken.extend(tile.slots)
            spare = len(slots) if len(taken) >= len(slots) else 0
            self._free.extend(taken[spare:])
            self._settled.notify_all()
            return tuple(taken[:spare])

    def _load(self, name: bytes, tile: _Tile) -> bytes | None:
        try:
            data = self._disk.read(tile.slots, tile.size)
        except OSError:
            return None
        if name_of(data) != name:
            return None
        with contextlib.suppress(OSError):
            self._disk.touch(tile.slots)
        return data

    def _forget(self, name: bytes, tile: _Tile) -> None:
        """Forget a damaged tile, unless it is gone already, or another took its place."""
        with self._settled:
            if self._get(name) is tile:
                self._free.extend(self._remove(name).slots)
                self._settled.notify_all()

    # Last, because in what follows `bytes` is no longer the type.

    @property
    def slots(self) -> int:
        """How many there are."""
        return self._count

    @property
    def max_bytes(self) -> int:
        """Bytes of all slots."""
        return self._count * self._disk.size

    @property
    def pinned_bytes(self) -> int:
        """Bytes of the slots of tiles that are pinned."""
        return self._pinned_slots * self._disk.size

    @property
    def bytes(self) -> int:
        """Bytes of the slots that are taken; never more than `max_bytes`."""
        return (self._count - len(self._free)) * self._disk.size
