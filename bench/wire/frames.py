"""Websocket frames (RFC 6455, 5.2) by hand: right ones at little cost, and wrong ones that no library would make."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from websockets.utils import apply_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

MASK = b"\x5a\xc3\x96\x3c"
"""One mask for all: nothing between this client and its daemon could be fooled by it."""


def frame(
    payload: bytes,
    opcode: int = BINARY,
    *,
    final: bool = True,
    reserved: int = 0,
    mask: bytes | None = MASK,
    declared: int | None = None,
) -> bytes:
    """One frame as a client sends it.

    `reserved` are the three bits that nobody may set, `mask` is None for a frame that breaks the rule to mask, and
    `declared` a length in the header that is not the payload's.
    """
    head = header(len(payload) if declared is None else declared, opcode, final, reserved, mask)
    return head + (payload if mask is None else apply_mask(payload, mask))


def header(
    length: int, opcode: int = BINARY, final: bool = True, reserved: int = 0, mask: bytes | None = MASK
) -> bytes:
    """The bytes before a payload of `length` bytes, which the caller masks."""
    first = (final << 7) | (reserved << 4) | opcode
    masked = 0x80 if mask is not None else 0
    if length < 126:
        head = bytes([first, masked | length])
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, masked | 126, length)
    else:
        head = struct.pack("!BBQ", first, masked | 127, length)
    return head + (mask or b"")


class Frames:
    """Takes a server's bytes apart as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Opcode and payload of each frame that is complete now. A server masks nothing and cuts nothing in pieces."""
        self._buffer += data
        while (end := self._end()) is not None:
            start, stop = end
            opcode, payload = self._buffer[0] & 15, bytes(self._buffer[start:stop])
            del self._buffer[:stop]
            yield opcode, payload

    def _end(self) -> tuple[int, int] | None:
        """Where the payload of the first frame begins and ends; None if it is not all here."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & 127, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:start], "big")
        return (start, start + length) if len(buffer) >= start + length else None
