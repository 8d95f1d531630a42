"""GGUF files by hand, true or not."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from underpaint_backend.models.gguf import TYPES

NUMBERS = {name: number for number, (name, _, _) in TYPES.items()}


def U32(value: int) -> bytes:
    """A number in 4 bytes."""
    return struct.pack("<I", value)


def U64(value: int) -> bytes:
    """A number in 8 bytes."""
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    """A text with its length before it."""
    data = value.encode() if isinstance(value, str) else value
    return U64(len(data)) + data


def note(name: str, kind: int, value: bytes) -> bytes:
    """A note."""
    return text(name) + U32(kind) + value


@dataclass(frozen=True)
class Line:
    """A tensor: its bytes and its place follow from the type and from what is before, unless they are said."""

    name: str | bytes
    shape: tuple[int, ...]
    dtype: str | int
    size: int | None = None
    offset: int | None = None

    @property
    def bytes(self) -> int:
        if self.size is not None:
            return self.size
        assert isinstance(self.dtype, str)
        _, block, size = TYPES[NUMBERS[self.dtype]]
        return min(prod(self.shape) // block * size, 1 << 40)


def header(lines: Sequence[Line], notes: Sequence[bytes] = (), version: int = 3) -> tuple[bytes, int]:
    """The header, with what is before the numbers, and how many bytes of numbers follow."""
    begin = b"GGUF" + U32(version) + U64(len(lines)) + U64(len(notes)) + b"".join(notes)
    at = 0
    for line in lines:
        kind = NUMBERS[line.dtype] if isinstance(line.dtype, str) else line.dtype
        sides = b"".join(U64(side) for side in reversed(line.shape))
        offset = at if line.offset is None else line.offset
        begin += text(line.name) + U32(len(line.shape)) + sides + U32(kind) + U64(offset)
        if line.offset is None:
            at = -(-(at + line.bytes) // 32) * 32
    end = max(((line.offset or 0) + line.bytes for line in lines[-1:] if line.offset is not None), default=0)
    last = lines[-1] if lines else None
    size = at - (-last.bytes % 32) if last is not None and last.offset is None else end
    return begin + bytes(-len(begin) % 32), size


def made(lines: Sequence[Line], notes: Sequence[bytes] = (), version: int = 3) -> bytes:
    """A whole small file, of zeros; numbers that are far away are not there."""
    begin, size = header(lines, notes, version)
    return begin + bytes(min(size, 1 << 12))


def write(path: Path, lines: Sequence[Line], notes: Sequence[bytes] = ()) -> Path:
    """A file of zeros, which take no room on the disk."""
    begin, size = header(lines, notes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(begin)
        file.truncate(len(begin) + size)
    return path
