"""How a tile is packed for its way: raw, or compressed without loss."""

from __future__ import annotations

import zlib

from .exceptions import TileError

ENCODINGS = ("raw", "zlib")


def encode(encoding: str, data: bytes) -> bytes:
    """Pack raw pixels."""
    return data if encoding == "raw" else zlib.compress(data, 1)


def decode(encoding: str, data: bytes, size: int) -> bytes:
    """Unpack."""
    if encoding != "raw":
        data = zlib.decompressobj().decompress(data, size + 1)
    if len(data) != size:
        raise TileError("it has another size than it says")
    return data
