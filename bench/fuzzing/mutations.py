"""What is done to right messages: to their structure before they are packed, and to their bytes after."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from random import Random
from typing import Any

import msgpack
from underpaint_protocol.messages import vocabulary
from underpaint_protocol.tiles import name_of

from .subjects import ABSENT, PIXELS, bomb, from_clients, from_servers

Mutation = Callable[[Random], bytes]

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 255, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
    *(math.nan, math.inf, -math.inf, 0.5, 1e308, -0.0),
    *("", "job", "../../etc/passwd", "\0", "a" * 65, "a" * 10_001, "\u202e\U0001f58c", "{detail}", "%s%n"),
    *(b"", b"\0" * 15, ABSENT, b"\0" * 17, b"\xff" * 4096, PIXELS, bytes(16 * 4097)),
    *([], {}, [[]], [{}], {"type": "hello"}, [None] * 100, {"a": 1}, list(range(5000))),
    *(msgpack.ExtType(5, b"ext"), msgpack.Timestamp(1, 2)),
)
ODD_BYTES = (
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"),
    *(
        b"\xc9\xff\xff\xff\xff\x05",
        b"\xc1",
        b"\xd4\xff\x00",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\x80",
        b"\x91",
        b"\xa4type",
    ),
)


def structure(random: Random) -> bytes:
    """A client's message with one to three wrong, missing, added or swapped values anywhere in it."""
    wire = vocabulary.to_wire(random.choice(from_clients()))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        _change(random, _somewhere(random, wire))
    return _packed(wire)


def bytewise(random: Random) -> bytes:
    """A packed message with some of its bytes flipped, inserted, cut out, doubled or cut off."""
    data = bytearray(_packed(vocabulary.to_wire(random.choice(from_clients()))))
    for _ in range(random.randint(1, 4)):
        random.choice((_flip, _insert, _cut_out, _double, _truncate, _overwrite))(random, data)
    return bytes(data)


def nesting(random: Random) -> bytes:
    """Maps and lists inside one another, far too many of them, or side by side."""
    depth = random.choice((9, 100, 511, 1023, 5000, 100_000))
    inside = random.choice((b"\xc0", b"", b"\x91", b"\xdc\x0f\xff" + b"\x90" * 4095))
    return random.choice((b"\x91" * depth, b"\x81\xa1a" * depth, b"\x81\xa4type" * depth)) + inside


def wide(random: Random) -> bytes:
    """As many values as a frame of some 100 KiB holds."""
    value = random.choice((b"\x90", b"\x00", b"\xc0", b"\x80", b"\xa0", b"\xc4\x00"))
    items = random.choice((250, 4000))
    row = b"\xdc" + items.to_bytes(2, "big") + value * items
    rows = 100_000 // items
    return b"\x82\xa4type\xa4have\xa1x\xdc" + rows.to_bytes(2, "big") + row * rows


def noise(random: Random) -> bytes:
    """Bytes that nobody meant."""
    return random.randbytes(random.choice((0, 1, 2, 16, 200, 4096)))


def turned_round(random: Random) -> bytes:
    """A message that only a server may send, right or slightly wrong."""
    wire = vocabulary.to_wire(random.choice(from_servers()))
    if random.random() < 0.5:
        _change(random, _somewhere(random, wire))
    return _packed(wire)


def tile(random: Random) -> bytes:
    """A tile of another content, size or encoding than it says."""
    name, size, data, encoding = name_of(PIXELS), len(PIXELS), PIXELS, "raw"
    fault = random.randrange(6)
    if fault == 0:
        name = random.randbytes(16)
    elif fault == 1:
        size = random.choice((1, len(PIXELS) - 1, len(PIXELS) + 1, 1 << 19))
    elif fault == 2:
        data, encoding, size, name = random.randbytes(300), "zlib", 1 << 18, ABSENT
    elif fault == 3:
        data, encoding, size, name = bomb() if random.random() < 0.02 else bomb()[:2000], "zlib", 1 << 19, ABSENT
    elif fault == 4:
        data = PIXELS[: random.randrange(len(PIXELS))]
    else:
        encoding = random.choice(("png", "", "RAW", "zlib"))
    return _packed({"type": "tile", "name": name, "size": size, "data": data, "encoding": encoding})


def _packed(wire: object) -> bytes:
    packed: bytes = msgpack.packb(wire)
    return packed


# Structure


def _somewhere(random: Random, wire: dict[Any, Any]) -> dict[Any, Any]:
    """The message itself, or one of the maps inside it."""
    inner = [value for value in wire.values() if isinstance(value, dict)]
    return _somewhere(random, random.choice(inner)) if inner and random.random() < 0.6 else wire


def _change(random: Random, place: dict[Any, Any]) -> None:
    key = random.choice(list(place)) if place else "type"
    what = random.randrange(6)
    if what == 0:
        place.pop(key, None)
    elif what == 1:
        place[random.choice(("extra", "", "seq", b"type", "job" * 20))] = _odd(random)
    elif what == 2:
        place[key] = _buried(random, _odd(random))
    else:
        place[key] = _odd(random)


def _odd(random: Random) -> Any:
    """A value that the next change may change again."""
    return copy.copy(random.choice(ODD_VALUES))


def _buried(random: Random, value: Any) -> Any:
    for _ in range(random.choice((1, 3, 7, 8, 20))):
        value = [value] if random.random() < 0.5 else {"a": value}
    return value


# Bytes


def _flip(random: Random, data: bytearray) -> None:
    for _ in range(random.randint(1, 8)):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _insert(random: Random, data: bytearray) -> None:
    at = random.randint(0, len(data))
    data[at:at] = random.choice((*ODD_BYTES, random.randbytes(random.randint(1, 9))))


def _cut_out(random: Random, data: bytearray) -> None:
    at = random.randint(0, len(data))
    del data[at : at + random.randint(1, 12)]


def _double(random: Random, data: bytearray) -> None:
    at = random.randint(0, len(data))
    data[at:at] = data[at : at + random.randint(1, 64)]


def _truncate(random: Random, data: bytearray) -> None:
    del data[random.randint(0, len(data)) :]


def _overwrite(random: Random, data: bytearray) -> None:
    at = random.randint(0, len(data))
    odd = random.choice(ODD_BYTES)
    data[at : at + len(odd)] = odd
