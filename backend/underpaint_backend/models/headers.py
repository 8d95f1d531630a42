"""The header of a safetensors file: which tensors it holds, of what shape, and where; checked before anything is read.

    8 bytes: length of the header, little-endian
    the header: one JSON object {"name": {"dtype": "F16", "shape": [320, 4, 3, 3], "data_offsets": [0, 23040]}, ...}
    the numbers

(https://github.com/huggingface/safetensors, "Format".) Only the header is ever read here, and no more than
`MAX_HEADER` of it, whatever the file claims.
"""

from __future__ import annotations

import json
import os
import stat
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

MAX_HEADER = 16 << 20
"""Bytes. A whole SDXL checkpoint needs 0.3 MB; trainers of LoRAs add captions of their pictures, a few MB at most."""

MAX_NAME = 1 << 10
"""Letters of a tensor's name; in GGUF, bytes. Those of models have 120 at most."""

MAX_DIMENSIONS = 8
MAX_SIDE = 1 << 48

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""Endings of weights that are programs as much as numbers; none is ever opened."""

BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "I64": 64,
    "U64": 64,
    "F64": 64,
}
"""The types of numbers that there are, and how many bits one takes."""

PICKLE_WORDS = (
    "it is a pickle: opening one can run any program, so Underpaint never opens one. Convert it to safetensors on a "
    "machine where that does no harm"
)


class BadFile(Exception):
    """A file cannot be used; the text says why and does not name it."""


@dataclass(frozen=True)
class Stored:
    """One tensor in a file: its type, its shape, how many bytes it takes, and where in the file they begin."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    begin: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Header:
    """What a file says of itself. `metadata` is what whoever wrote it wanted to note."""

    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; () if there is none of this name."""
        found = self.tensors.get(name)
        return found.shape if found is not None else ()


def read_header(path: Path) -> Header:
    """The header of the file `path`.

    Raises `BadFile` if it is no file that could be loaded.
    """
    if path.suffix.lower() in PICKLES:
        raise BadFile(PICKLE_WORDS)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadFile("it is not a file")
        with path.open("rb") as file:
            return _read(file.fileno(), status.st_size)
    except OSError as error:
        raise BadFile(f"it cannot be read: {error.strerror}") from error


def _read(descriptor: int, file_size: int) -> Header:
    begin = os.pread(descriptor, 64, 0) if hasattr(os, "pread") else os.read(descriptor, 64)
    length = int.from_bytes(begin[:8], "little")
    if len(begin) < 8 or length > min(MAX_HEADER, file_size - 8):
        _refuse(begin, length, file_size)
    os.lseek(descriptor, 8, os.SEEK_SET)
    text = b""
    while len(text) < length:
        more = os.read(descriptor, length - len(text))
        if not more:
            raise BadFile("it is cut off inside its header")
        text += more
    return parse_header(text, file_size - 8 - length)


def _refuse(begin: bytes, length: int, file_size: int) -> NoReturn:
    """Say what a file is whose first 8 bytes cannot be the length of a header."""
    if begin[:2] == b"PK" or (begin[:1] == b"\x80" and begin[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        raise BadFile(PICKLE_WORDS)
    if begin[:4] == b"GGUF":
        raise BadFile("it is a GGUF file under another name")
    if begin.startswith(b"version https://git-lfs"):
        raise BadFile("it is only a pointer of Git LFS; the file itself was never fetched")
    if begin.lstrip()[:1] == b"<":
        raise BadFile("it is a web page; the download was refused")
    if len(begin) < 8:
        raise BadFile("it is empty" if not begin else "it is cut off inside its header")
    if length > MAX_HEADER:
        raise BadFile(f"it is not in the safetensors format, or damaged: its header would have {length} bytes")
    raise BadFile(f"it is cut off inside its header: {file_size} of more than {length + 8} bytes are there")


def parse_header(text: bytes, data_size: int) -> Header:
    """The header that is written in `text`, of a file with `data_size` bytes of numbers.

    Raises `BadFile` if it is not one, or does not fit the numbers exactly.
    """
    if text[:1] != b"{":
        raise BadFile("it is not in the safetensors format: its header does not begin with a brace")
    try:
        found: Any = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadFile("its header is damaged: it is not valid JSON") from error
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadFile("its header is damaged: its metadata are not text")
    tensors = {name: _placed(name, entry, 8 + len(text)) for name, entry in found.items()}
    _check_places(tensors, 8 + len(text), data_size)
    return Header(tensors, metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _placed(name: str, entry: Any, data: int) -> Stored:
    """One tensor of a file whose numbers begin at the byte `data`."""
    if len(name) > MAX_NAME:
        raise BadFile(f"its header is damaged: a name in it has {len(name)} letters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadFile(f"its header is damaged at {short(name)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise BadFile(f"its header is damaged: {short(name)} has the unknown type {short(dtype)}")
    if not _are_sizes(shape, MAX_DIMENSIONS) or not _are_sizes(offsets, 2) or len(offsets) != 2:
        raise BadFile(f"its header is damaged: {short(name)} has no proper shape or place")
    bits = BITS[dtype]
    for side in shape:
        bits *= side
    begin, end = offsets
    if end < begin or (end - begin) * 8 != bits:
        raise BadFile(f"its header is wrong: {short(name)} takes {bits // 8} bytes, and {end - begin} are given to it")
    return Stored(dtype, tuple(shape), end - begin, data + begin)


def _are_sizes(value: Any, most: int) -> bool:
    if not isinstance(value, list) or len(value) > most:
        return False
    return all(type(side) is int and 0 <= side <= MAX_SIDE for side in value)


def _check_places(tensors: Mapping[str, Stored], begin: int, size: int) -> None:
    """Tensors lie one behind the other, without gaps, and fill the `size` bytes from `begin` to the end of the file."""
    at = begin
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].size)):
        if stored.begin < at:
            raise BadFile(f"its header is wrong: {short(name)} overlaps another tensor")
        if stored.begin > at:
            raise BadFile(f"its header is wrong: there is a gap before {short(name)}")
        at += stored.size
    found = at - begin
    if found > size:
        raise BadFile(f"it is cut off: {found - size} of its {found} bytes of numbers are missing")
    if found < size:
        raise BadFile(f"it is damaged: {size - found} bytes at its end belong to nothing")


def short(name: object) -> str:
    """A name for a sentence: printable, and not long."""
    return f"“{printable(str(name), 60)}”"


def printable(text: str, most: int) -> str:
    """The first `most` letters of what somebody else wrote, with question marks for those that are none.

    Of those are what steers a terminal, and bytes of a file's name that are no Unicode.
    """
    return "".join(
        letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else "?" for letter in text[:most]
    )
