"""Bytes for a daemon's TCP socket that are no handshake, or almost one, and frames that break RFC 6455."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from underpaint_protocol.messages import Hello, vocabulary
from wire.frames import BINARY, CLOSE, CONTINUATION, MASK, PING, TEXT, frame, header

ODD_LINES = (
    *("Host: evil.example", "Host: 127.0.0.1", "Origin: null", "Authorization: Bearer ", "Authorization: Basic eDp5"),
    *("Sec-WebSocket-Key: short", "Sec-WebSocket-Key: " + "A" * 5000, "Sec-WebSocket-Version: 99", "Upgrade: h2c"),
    *("Content-Length: 2147483648", "Transfer-Encoding: chunked", "Expect: 100-continue", ": empty", "a b: c"),
    *("Sec-WebSocket-Extensions: permessage-deflate; x=" + "y" * 900, "Sec-WebSocket-Protocol: ,,,", " folded", "\0"),
)
ODD_STARTS = (
    *(
        "POST / HTTP/1.1",
        "GET / HTTP/1.0",
        "GET / HTTP/9.9",
        "GET /" + "a" * 9000 + " HTTP/1.1",
        "CONNECT x:1 HTTP/1.1",
    ),
    *("GET http://[ HTTP/1.1", "GET //../../etc/passwd HTTP/1.1", "GET", "", "PRI * HTTP/2.0", "GET  /  HTTP/1.1"),
)
HELLO = frame(vocabulary.encode(Hello("knock")))


def request(random: Random, right: bytes) -> bytes:
    """The right request with lines changed, doubled, swapped, left out or added."""
    lines = right.decode("ascii").split("\r\n")[:-2]
    for _ in range(random.randint(1, 4)):
        what, at = random.randrange(5), random.randrange(len(lines))
        if what == 0:
            lines[0] = random.choice(ODD_STARTS)
        elif what == 1 and len(lines) > 1:
            del lines[at]
        elif what == 2:
            lines.insert(at, lines[random.randrange(len(lines))])
        else:
            lines.insert(at, random.choice(ODD_LINES))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def torn_request(random: Random, right: bytes) -> bytes:
    """The right request with bytes flipped, or only a part of it."""
    data = bytearray(right)
    for _ in range(random.randint(0, 6)):
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data[: random.randint(0, len(data))] if random.random() < 0.5 else data)


def stranger(random: Random, right: bytes) -> bytes:
    """What other protocols would say, noise, and far too much of everything."""
    return random.choice(
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(500),
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            random.randbytes(random.choice((1, 100, 5000))),
            b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * random.choice((127, 129, 1000)) + b"\r\n",
            b"A" * random.choice((100, 8192, 8193, 70_000)),
            HELLO,
            b"\r\n" * 50,
        )
    )


def broken_frame(random: Random) -> bytes:
    """A frame, or several, after which a websocket cannot go on; or only the beginning of one."""
    return random.choice(BROKEN)(random)


def _wrong_opcode(random: Random) -> bytes:
    return frame(random.randbytes(5), random.choice((3, 4, 5, 6, 7, 11, 12, 13, 14, 15)))


def _unmasked(random: Random) -> bytes:
    return frame(random.randbytes(20), mask=None)


def _reserved_bits(random: Random) -> bytes:
    return frame(random.randbytes(20), reserved=random.randint(1, 7))


def _huge(random: Random) -> bytes:
    return frame(b"", declared=random.choice((2 << 20 | 1, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, (1 << 63) - 1)))


def _beyond(random: Random) -> bytes:
    """The first bit of a length of 64 bits must not be set."""
    return bytes([0x82, 0xFF]) + struct.pack("!Q", 1 << 63 | random.randrange(1 << 20)) + MASK


def _half(random: Random) -> bytes:
    whole = frame(random.randbytes(300))
    return whole[: random.randrange(1, len(whole))]


def _control_in_pieces(random: Random) -> bytes:
    return frame(b"x", random.choice((PING, CLOSE)), final=False)


def _long_control(random: Random) -> bytes:
    return frame(random.randbytes(126), random.choice((PING, CLOSE)))


def _nothing_to_continue(random: Random) -> bytes:
    return frame(random.randbytes(3), CONTINUATION)


def _begun_twice(random: Random) -> bytes:
    return frame(b"a", BINARY, final=False) + frame(b"b", BINARY)


def _endless_pieces(random: Random) -> bytes:
    piece = frame(bytes(1 << 18), CONTINUATION, final=False)
    return frame(b"", BINARY, final=False) + piece * 9


def _bad_close(random: Random) -> bytes:
    return frame(random.choice((b"\x03", struct.pack("!H", 1005), struct.pack("!H", 999), b"\x03\xe8\xff\xfe")), CLOSE)


def _bad_text(random: Random) -> bytes:
    return frame(b"\xff\xfe" + random.randbytes(5), TEXT)


def _long_way(random: Random) -> bytes:
    """A length in more bytes than it needs; a library may take it, and what follows must not be taken for it."""
    payload = vocabulary.encode(Hello("long way"))
    head = bytes([0x82, 0xFF]) + struct.pack("!Q", len(payload)) + bytes(4)
    return head + payload + header(5, 3)


BROKEN: tuple[Callable[[Random], bytes], ...] = (
    *(_wrong_opcode, _unmasked, _reserved_bits, _huge, _beyond, _half, _control_in_pieces, _long_control),
    *(_nothing_to_continue, _begun_twice, _endless_pieces, _bad_close, _bad_text, _long_way),
)
