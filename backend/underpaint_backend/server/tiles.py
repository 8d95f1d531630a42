"""The pixels that clients sent, as tiles on disk, each named by its content.

A tile is up to 512 KiB of raw pixels. Its name is the BLAKE2b-128 of them (RFC 7693), 16 bytes, and its file is
`folder/ab/abcdef…` in hexadecimal. What was used least recently goes when the store is full; what is pinned stays.

The index lies in memory, and its lock is never held while a file is touched or content is hashed: `missing`, `size_of`,
`pin` and `unpin` are called on the event loop, which must not wait for a disk. A name whose file is written or deleted
at this moment is *busy*: it is not in the index, and whoever wants to write it waits until that is settled.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from underpaint_protocol.fields import DIGEST_SIZE
from underpaint_protocol.tiles import name_of

PART = ".part"
FILE_NAME = re.compile(rf"[0-9a-f]{{{2 * DIGEST_SIZE}}}({re.escape(PART)})?")


class StoreFull(Exception):
    """There is no room: everything that is left is pinned, or the disk takes no more."""


class BadTile(Exception):
    """The content of a tile does not match its name."""


@dataclass(frozen=True, eq=False)
class _Tile:
    """A file that is on disk. Equal only to itself: a tile that was evicted and sent again is another one."""

    size: int


class TileStore:
    """Tiles on disk, `max_bytes` of them at most. All methods may be called from any thread."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._loose: OrderedDict[bytes, _Tile] = OrderedDict()  # least recently used first
        self._pinned: dict[bytes, _Tile] = {}
        self._pins: Counter[bytes] = Counter()  # of damaged tiles too: they are pinned again when they are sent again
        self._busy: set[bytes] = set()
        self._bytes = 0  # on disk, promised to a write, or not deleted yet
        self._pinned_bytes = 0
        self._settled = threading.Condition()

    def open(self) -> None:
        """Find what an earlier daemon left, and delete what does not fit; this reads the folder, not the tiles.

        Raises `OSError` if the folder cannot be made or read.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found: list[tuple[bytes, _Tile]] = []
        room = self.max_bytes
        for _, name, size in sorted(self._files(), reverse=True):
            if size <= room:
                room -= size
                found.append((name, _Tile(size)))
            else:
                self._path(name).unlink(missing_ok=True)
        with self._settled:
            self._loose = OrderedDict(reversed(found))
            self._bytes = self.max_bytes - room

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

    def put(self, name: bytes, data: bytes) -> None:
        """Write a tile, for which others may have to go. What is here already is neither hashed nor written.

        Blocks. Raises `BadTile` if `data` does not match `name`, and `StoreFull` if no room can be made or the disk
        does not take it; nothing of it is left then.
        """
        if not self._claim(name):
            return
        tile, promised = None, 0
        try:
            if name_of(data) != name:
                raise BadTile(f"the content of {name.hex()} does not match its name")
            self._make_room(len(data))
            promised = len(data)
            self._write(name, data)
            tile, promised = _Tile(len(data)), 0
        finally:
            self._settle(name, tile, freed=promised)

    def read(self, name: bytes) -> bytes | None:
        """The pixels of a tile; None if it is not here, which a damaged or vanished file is not either. Blocks."""
        with self._settled:
            tile = self._use(name)
        if tile is None:
            return None
        data = self._load(name, tile.size)
        if data is None:
            self._drop(name, tile)
        return data

    def pin(self, names: Iterable[bytes]) -> None:
        """Keep tiles until they are unpinned as often as pinned; a name counts once per call. Memory only.

        Raises `KeyError` with the first name that is not here, and pins nothing then.
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

    # The index. Whoever calls these holds the lock.

    def _get(self, name: bytes) -> _Tile | None:
        return self._loose.get(name) or self._pinned.get(name)

    def _use(self, name: bytes) -> _Tile | None:
        if name in self._loose:
            self._loose.move_to_end(name)
        return self._get(name)

    def _insert(self, name: bytes, tile: _Tile) -> None:
        if name in self._pins:
            self._pinned[name] = tile
            self._pinned_bytes += tile.size
        else:
            self._loose[name] = tile

    def _unpin(self, name: bytes) -> None:
        self._pins[name] -= 1
        if not self._pins[name]:
            del self._pins[name]
            tile = self._pinned.pop(name, None)
            if tile is not None:
                self._pinned_bytes -= tile.size
                self._loose[name] = tile

    # Between the index and the disk. Whoever calls these does not hold the lock.

    def _claim(self, name: bytes) -> bool:
        """Make a name busy; false if its tile is here, maybe because another thread has just written it."""
        with self._settled:
            self._settled.wait_for(lambda: name not in self._busy)
            if self._use(name) is not None:
                return False
            self._busy.add(name)
            return True

    def _settle(self, name: bytes, tile: _Tile | None, freed: int = 0) -> None:
        """A busy name is busy no more: its tile is here, or it is not. `freed` bytes are free again."""
        with self._settled:
            self._busy.discard(name)
            self._bytes -= freed
            if tile is not None:
                self._insert(name, tile)
            self._settled.notify_all()

    def _make_room(self, size: int) -> None:
        """Promise `size` bytes to the caller, and delete tiles for them. Raises `StoreFull`."""
        while (victim := self._promise(size)) is not None:
            name, tile = victim
            try:
                self._path(name).unlink(missing_ok=True)
            except OSError as error:
                self._settle(name, tile)
                raise StoreFull(f"no room can be made: {error}") from error
            self._settle(name, None, freed=tile.size)

    def _promise(self, size: int) -> tuple[bytes, _Tile] | None:
        """Promise `size` bytes; or the tile, busy now, that the caller must delete first.

        Waits while all that could go is being written or deleted by others. Those have their bytes and wait for
        nobody, so this ends. Bytes count until their file is gone, so that the disk never holds more than allowed.
        """
        with self._settled:
            while self._bytes + size > self.max_bytes:
                if self._pinned_bytes + size > self.max_bytes:
                    raise StoreFull(f"{self._pinned_bytes} of {self.max_bytes} bytes are pinned")
                if self._loose:
                    name, tile = self._loose.popitem(last=False)
                    self._busy.add(name)
                    return name, tile
                self._settled.wait()
            self._bytes += size
            return None

    def _drop(self, name: bytes, tile: _Tile) -> None:
        """Forget a damaged tile and delete its file, unless it is gone already, or another took its place."""
        with self._settled:
            if self._get(name) is not tile:
                return
            if self._loose.pop(name, None) is None:
                del self._pinned[name]
                self._pinned_bytes -= tile.size
            self._busy.add(name)
        with contextlib.suppress(OSError):  # a file that cannot be deleted is replaced when the tile is sent again
            self._path(name).unlink()
        self._settle(name, None, freed=tile.size)

    # The disk.

    def _path(self, name: bytes) -> Path:
        digits = name.hex()
        return self._folder / digits[:2] / digits

    def _write(self, name: bytes, data: bytes) -> None:
        """Write a file in one go. It is not synced: a file that a power cut tore is found by its hash.

        Raises `StoreFull`, and then nothing of the file is left.
        """
        path = str(self._path(name))
        part = path + PART
        try:
            _write_whole(part, data)
            os.replace(part, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise StoreFull(f"a tile of {len(data)} bytes cannot be written: {error}") from error

    def _load(self, name: bytes, size: int) -> bytes | None:
        path = self._path(name)
        try:
            with path.open("rb") as file:
                data = file.read(size + 1)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the next daemon sees by it what was used last
        return data if name_of(data) == name else None

    def _files(self) -> Iterator[tuple[int, bytes, int]]:
        """When each tile was used last (ns), its name and its size; what was left half written is deleted."""
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            status = path.lstat()
            if not (FILE_NAME.fullmatch(path.name) and stat.S_ISREG(status.st_mode)):
                continue  # no store wrote this
            if path.suffix == PART:
                path.unlink()
            elif path.name.startswith(path.parent.name):
                yield status.st_mtime_ns, bytes.fromhex(path.name), status.st_size

    # Last, because in what follows `bytes` is no longer the type.

    @property
    def pinned_bytes(self) -> int:
        """Bytes of the tiles that are pinned."""
        return self._pinned_bytes

    @property
    def bytes(self) -> int:
        """Bytes on disk, those of writes that are under way included; never more than `max_bytes`."""
        return self._bytes


def _write_whole(path: str, data: bytes) -> None:
    """Make a file, and its folder if that is the first one in it; as few system calls as that takes."""
    try:
        descriptor = _create(path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = _create(path)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
