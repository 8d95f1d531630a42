"""A file of slots of one size in which tiles lie, and beside it an index of what lies in each.

Filesystems take longer to make and delete a file than to write a tile, so a slot is written again and again. Nothing
is synced, and the index is written after the pixels: what a power cut or a kill left half done does not match its name.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from underpaint_protocol.tiles import MAX_TILE, TILE

SLOT = TILE * TILE * 4
"""Bytes that a tile of four channels of 8 bits fills; larger ones take two slots."""

RECORD = struct.Struct("<16sIIQ")
"""Name of the tile, its bytes, which part of it this is, and when it was used last (ns); all zero is a free slot.

The first record of an index is `MAGIC`, the size of a slot, the version of the format and 0."""
USED = struct.Struct("<Q")
MAGIC = b"underpaint tiles"
VERSION = 1


@dataclass(frozen=True)
class Found:
    """A tile that an earlier daemon left. Ordered by when it was used last, in ns."""

    used: int
    name: bytes
    size: int
    slots: tuple[int, ...]


class Slots:
    """The two files. After `open`, `read`, `write` and `touch` may be called from any thread."""

    def __init__(self, folder: Path, size: int = SLOT) -> None:
        self.size = size
        self._folder = folder
        self._pixels: _File | None = None
        self._index: _File | None = None

    def needed(self, size: int) -> int:
        """How many slots a tile of `size` bytes takes."""
        return max(1, -(-size // self.size))

    def open(self, count: int) -> list[Found]:
        """What is there, used least recently first, in slots below `count`; more than fit in these are dropped.

        Raises `OSError` if the files cannot be made or read.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._pixels, self._index = _File(self._folder / "pixels"), _File(self._folder / "index")
        header = RECORD.pack(MAGIC, self.size, VERSION, 0)
        if self._index.read(RECORD.size, 0) != header:
            self._index.truncate(0)
            self._index.write(header, 0)
        kept = self._fitting(sorted(self._found(), key=lambda found: found.used), count)
        self._pixels.truncate(min(count * self.size, self._pixels.length))
        self._index.truncate(min((1 + count) * RECORD.size, self._index.length))
        return kept

    def close(self) -> None:
        """Let go of the files."""
        for file in (self._pixels, self._index):
            if file is not None:
                file.close()
        self._pixels = self._index = None

    def write(self, slots: Sequence[int], name: bytes, data: bytes) -> None:
        """Put a tile into as many slots as it needs. Raises `OSError`; what was in them is lost then."""
        assert self._pixels is not None
        assert self._index is not None
        now, view = time.time_ns(), memoryview(data)
        for part, slot in enumerate(slots):
            self._pixels.write(view[part * self.size : (part + 1) * self.size], slot * self.size)
        for part, slot in enumerate(slots):
            self._index.write(RECORD.pack(name, len(data), part, now), _place(slot))

    def read(self, slots: Sequence[int], size: int) -> bytes:
        """`size` bytes out of `slots`, fewer if the file has fewer. Raises `OSError`."""
        assert self._pixels is not None
        if len(slots) == 1:
            return self._pixels.read(size, slots[0] * self.size)
        lengths = (min(self.size, size - part * self.size) for part in range(len(slots)))
        return b"".join(
            [self._pixels.read(length, slot * self.size) for slot, length in zip(slots, lengths, strict=True)]
        )

    def touch(self, slots: Sequence[int]) -> None:
        """The tile in `slots` was used; the next daemon sees it. Raises `OSError`."""
        assert self._index is not None
        self._index.write(USED.pack(time.time_ns()), _place(slots[0]) + RECORD.size - USED.size)

    def _found(self) -> Iterator[Found]:
        """Every tile of which all parts are there."""
        assert self._pixels is not None
        assert self._index is not None
        records = self._index.read(self._index.length, 0)
        parts: dict[tuple[bytes, int], dict[int, tuple[int, int]]] = {}
        for slot, start in enumerate(range(RECORD.size, len(records) - RECORD.size + 1, RECORD.size)):
            name, size, part, used = RECORD.unpack_from(records, start)
            end = slot * self.size + min(self.size, size - part * self.size)
            if 0 < size <= MAX_TILE and part < self.needed(size) and end <= self._pixels.length:
                parts.setdefault((name, size), {})[part] = slot, used
        for (name, size), by_part in parts.items():
            if len(by_part) == self.needed(size):
                yield Found(by_part[0][1], name, size, tuple(by_part[part][0] for part in range(len(by_part))))

    def _fitting(self, found: Sequence[Found], count: int) -> list[Found]:
        """Those used last that fit into `count` slots, moved there if they lie beyond."""
        kept: list[Found] = []
        room = count
        for tile in reversed(found):
            if len(tile.slots) <= room:
                room -= len(tile.slots)
                kept.append(tile)
        taken = {slot for tile in kept for slot in tile.slots}
        free = (slot for slot in range(count) if slot not in taken)
        return [self._moved(tile, free) if max(tile.slots) >= count else tile for tile in reversed(kept)]

    def _moved(self, tile: Found, free: Iterator[int]) -> Found:
        """The tile, in other slots."""
        slots = tuple(next(free) for _ in tile.slots)
        self.write(slots, tile.name, self.read(tile.slots, tile.size))
        return Found(tile.used, tile.name, tile.size, slots)


class _File:
    """A file that many threads read and write at places of their own."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        self._turn = threading.Lock()
        """For Windows, where one can only go to a place first and read there afterwards."""

    @property
    def length(self) -> int:
        """Bytes."""
        return os.fstat(self._descriptor).st_size

    def truncate(self, length: int) -> None:
        """Make it `length` bytes long."""
        os.truncate(self._descriptor, length)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def read(self, size: int, offset: int) -> bytes:
        """`size` bytes, or as many as there are."""
        pieces: list[bytes] = []
        while size > 0 and (piece := self._read(size, offset)):
            pieces.append(piece)
            size, offset = size - len(piece), offset + len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """All of `data`."""
        rest = memoryview(data)
        while rest:
            written = self._write(rest, offset)
            rest, offset = rest[written:], offset + written

    def _read(self, size: int, offset: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, size, offset)
        with self._turn:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, size)

    def _write(self, data: memoryview, offset: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._descriptor, data, offset)
        with self._turn:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.write(self._descriptor, data)


def _place(slot: int) -> int:
    """Where the record of a slot begins."""
    return (1 + slot) * RECORD.size
