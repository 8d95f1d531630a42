"""The header of a GGUF file: which tensors it holds, quantised how, and where; checked before anything is read.

    "GGUF", the version (4 bytes), the number of tensors and of notes (8 bytes each), all little-endian
    the notes: a name, a type (4 bytes) and a value each; a text is its length (8 bytes) and its bytes
    the tensors: a name, the number of sides (4 bytes), the sides from the innermost one (8 bytes each), a type (4
    bytes), and where the numbers begin (8 bytes)
    the numbers, the beginning of each tensor at a multiple of the alignment

(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) No more than `MAX_HEADER` bytes are read here, whatever the
file claims. Numbers are taken in blocks, each with a scale of its own: what a block takes says `TYPES`.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

from .headers import MAX_HEADER, MAX_NAME, MAX_SIDE, BadFile, Header, Stored, read_header, short

ENDING = ".gguf"
VERSIONS = (2, 3)
MAX_SIDES = 4
MAX_NOTED = 1 << 12
"""Bytes of a text that is kept."""
MAX_TEXTS = 1 << 16
"""Texts in lists. Language models have their vocabulary there; those of pictures have none."""
SMALLEST_NOTE, SMALLEST_TENSOR = 13, 24
"""Bytes that each takes at least, so that counts can be checked before they are counted to."""
ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16

TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""The types of numbers: their names, how many are in a block, and what a block takes in bytes."""

PLAIN = ("F32", "F16", "BF16")
"""Types that are numbers as they are."""
QUANTISED = tuple("Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split())
"""Types that diffusers can make numbers of."""

BLOCKS = {name: block for name, block, _ in TYPES.values()}
"""How many numbers are in a block of each type."""

_SCALARS: Mapping[int, str] = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_SHAPE = "comfy.gguf.orig_shape."
"""What the notes are named that say the shape of tensors whose own has no whole blocks: kernels of convolutions."""
_UNET = "model.diffusion_model."
"""What ComfyUI's converter takes off the names of a UNet's tensors."""


@dataclass(frozen=True)
class GgufHeader(Header):
    """What a GGUF file says of itself. `places` says where in the file the bytes of a tensor begin."""

    places: Mapping[str, int]


def is_gguf(path: Path) -> bool:
    """Whether a file is called one."""
    return path.suffix.lower() == ENDING


def header_of(path: Path) -> Header:
    """The header of a file with weights, of either format.

    Raises `BadFile` if it is no file that could be loaded.
    """
    return read_gguf(path) if is_gguf(path) else read_header(path)


def read_gguf(path: Path) -> GgufHeader:
    """The header of the GGUF file `path`. The names of tensors are as in the checkpoints of the original authors.

    Raises `BadFile` if it is no file that could be loaded.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadFile("it is not a file")
        with path.open("rb") as file:
            return _read(_Cursor(file, status.st_size))
    except OSError as error:
        raise BadFile(f"it cannot be read: {error.strerror}") from error


class _Cursor:
    """Reads a header from its beginning, and never beyond its bound."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self.size = size
        self.at = 0
        self._file = file

    def take(self, count: int) -> bytes:
        """The next bytes."""
        self._check(count)
        found = self._file.read(count)
        if len(found) < count:
            raise BadFile("it is cut off inside its header")
        self.at += count
        return found

    def skip(self, count: int) -> None:
        """Leave bytes out."""
        self._check(count)
        self._file.seek(count, 1)
        self.at += count

    def number(self, form: str) -> Any:
        """The next number."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def count(self, smallest: int, what: str) -> int:
        """How many things follow, that take `smallest` bytes each or more."""
        found: int = self.number("Q")
        if found * smallest > MAX_HEADER:
            raise BadFile(f"its header is damaged: it would have {found} {what}")
        return found

    def text(self, most: int) -> str:
        """The next text."""
        length: int = self.number("Q")
        if length > most:
            raise BadFile(f"its header is damaged: a name in it would have {length} bytes")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise BadFile("its header is damaged: a name in it is no text") from error

    def _check(self, count: int) -> None:
        if self.at + count > self.size:
            raise BadFile("it is cut off inside its header")
        if self.at + count > MAX_HEADER:
            raise BadFile(f"its header is damaged, or has more than {MAX_HEADER >> 20} MiB")


def _read(cursor: _Cursor) -> GgufHeader:
    if cursor.size == 0:
        raise BadFile("it is empty")
    begin = cursor.take(min(8, cursor.size))
    if begin[:4] != b"GGUF" or len(begin) < 8:
        raise BadFile("it is not in the GGUF format" if begin[:4] != b"GGUF" else "it is cut off inside its header")
    version = int.from_bytes(begin[4:], "little")
    if version not in VERSIONS:
        turned = version and not version & 0xFFFF
        words = "for machines that count their bytes from the other end" if turned else f"{version}"
        raise BadFile(f"it is in another version of the GGUF format than {VERSIONS[0]} and {VERSIONS[1]}: {words}")
    tensors = cursor.count(SMALLEST_TENSOR, "tensors")
    notes = _notes(cursor, cursor.count(SMALLEST_NOTE, "notes"))
    infos = [_info(cursor) for _ in range(tensors)]
    alignment = notes.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise BadFile("its header is damaged: its alignment is no power of two")
    begin_of_data = -(-cursor.at // alignment) * alignment
    return _header(infos, notes, begin_of_data, alignment, cursor.size)


@dataclass(frozen=True)
class _Info:
    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    offset: int


def _notes(cursor: _Cursor, count: int) -> dict[str, Any]:
    """Short texts, whole numbers and shapes; whatever else is noted is left out."""
    found: dict[str, Any] = {}
    for _ in range(count):
        name = cursor.text(MAX_NAME)
        if name in found:
            raise BadFile(f"its header is damaged: {short(name)} is noted twice")
        found[name] = _value(cursor, cursor.number("I"), name)
    return found


def _value(cursor: _Cursor, kind: int, name: str) -> Any:
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind == _TEXT:
        length = cursor.number("Q")
        if length <= MAX_NOTED:
            return cursor.take(length).decode(errors="replace")
        return cursor.skip(length)
    if kind != _LIST:
        raise BadFile(f"its header is damaged: {short(name)} is of the unknown type {kind}")
    inner = cursor.number("I")
    if inner == _TEXT:
        count = cursor.count(8, "texts in a list")
        if count > MAX_TEXTS:
            raise BadFile(f"it has a list of {count} texts, as language models and text encoders have")
        for _ in range(count):
            cursor.skip(cursor.number("Q"))
        return None
    if inner not in _SCALARS:
        raise BadFile(f"its header is damaged: {short(name)} is a list of the unknown type {inner}")
    size = struct.calcsize(f"<{_SCALARS[inner]}")
    length = cursor.count(size, "numbers in a list")
    if name.startswith(_SHAPE) and length <= 2 * MAX_SIDES:
        return tuple(cursor.number(_SCALARS[inner]) for _ in range(length))
    return cursor.skip(length * size)


def _info(cursor: _Cursor) -> _Info:
    name = cursor.text(MAX_NAME)
    sides = cursor.number("I")
    if not 0 < sides <= MAX_SIDES:
        raise BadFile(f"its header is damaged: {short(name)} has {sides} sides")
    shape = tuple(reversed([cursor.number("Q") for _ in range(sides)]))
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in TYPES:
        raise BadFile(f"its header is damaged, or new: {short(name)} is of the unknown type {kind}")
    dtype, block, size = TYPES[kind]
    if any(not 0 < side <= MAX_SIDE for side in shape) or shape[-1] % block:
        raise BadFile(f"its header is damaged: {short(name)} has no proper shape for {dtype}")
    if dtype not in PLAIN and dtype not in QUANTISED:
        raise BadFile(f"its weights are in {dtype}, which is not read; choose a file in Q4_K, Q5_K or Q8_0")
    return _Info(name, shape, dtype, prod(shape) // block * size, offset)


def _header(infos: list[_Info], notes: Mapping[str, Any], begin: int, alignment: int, file_size: int) -> GgufHeader:
    """The header, once it is known that all lies within the file and nothing on top of another."""
    at = begin
    for info in sorted(infos, key=lambda info: info.offset):
        place = begin + info.offset
        if info.offset % alignment:
            raise BadFile(f"its header is wrong: {short(info.name)} begins between two places")
        if place < at:
            raise BadFile(f"its header is wrong: {short(info.name)} overlaps another tensor")
        at = place + info.size
    if at > file_size:
        raise BadFile(f"it is cut off: {at - file_size} of its {at} bytes are missing")
    named = _naming(infos)
    tensors = {named(info.name): Stored(info.dtype, _shape(info, notes), info.size) for info in infos}
    if len(tensors) < len(infos):
        raise BadFile("its header is damaged: a name occurs twice")
    texts = {name: value for name, value in notes.items() if isinstance(value, str)}
    return GgufHeader(tensors, texts, {named(info.name): begin + info.offset for info in infos})


def _naming(infos: list[_Info]) -> Callable[[str], str]:
    """What tensors are called in the original layout."""
    is_bare_unet = any(info.name == "input_blocks.0.0.weight" for info in infos)
    return lambda name: f"{_UNET}{name}" if is_bare_unet else name


def _shape(info: _Info, notes: Mapping[str, Any]) -> tuple[int, ...]:
    """A tensor's shape before it was laid out in whole blocks."""
    noted = notes.get(f"{_SHAPE}{info.name}")
    if noted is None:
        return info.shape
    if type(noted) is not tuple or not all(type(side) is int and side > 0 for side in noted):
        raise BadFile(f"its header is damaged: the shape noted for {short(info.name)} is none")
    if prod(noted) != prod(info.shape):
        raise BadFile(f"its header is wrong: {short(info.name)} has another shape than is noted for it")
    return noted
