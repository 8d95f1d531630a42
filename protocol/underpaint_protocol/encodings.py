"""How the raw pixels of a tile are packed for the way, without loss.

`raw` is for loopback, where copying is cheaper than anything else. `zlib` is one stream of RFC 1950, for every other
way: it is in each Python, so neither the plugin nor the daemon needs an image library.
"""

from __future__ import annotations

import zlib

from .exceptions import TileError

ENCODINGS = ("raw", "zlib")
LEVEL = 1


def encode(encoding: str, data: bytes) -> bytes:
    """Pack raw pixels.

    Raises `TileError` if nobody knows the encoding.
    """
    if encoding == "raw":
        return data
    if encoding == "zlib":
        return zlib.compress(data, LEVEL)
    raise TileError(f"there is no encoding {encoding!r}")


def decode(encoding: str, data: bytes, size: int) -> bytes:
    """Unpack `size` bytes of raw pixels. No input makes this unpack more than one byte beyond them.

    Raises `TileError` if nobody knows the encoding, or if `data` is not exactly one encoding of `size` bytes.
    """
    if encoding == "raw":
        pixels = data
    elif encoding == "zlib":
        pixels = _inflate(data, size)
    else:
        raise TileError(f"there is no encoding {encoding!r}")
    if len(pixels) != size:
        raise TileError(f"it has another size than the {size} bytes that it should have")
    return pixels


def _inflate(data: bytes, size: int) -> bytes:
    """What a stream holds, or its first `size` + 1 bytes if that is more."""
    if size < 0:
        raise TileError(f"no tile has {size} bytes")
    stream = zlib.decompressobj()
    try:
        # the byte too many tells a stream that goes on; a limit of 0 would mean none
        pixels = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise TileError(f"it is no zlib stream: {error}") from error
    if len(pixels) <= size and not stream.eof:
        raise TileError("its end is missing")
    if stream.unused_data:
        raise TileError("something follows its end")
    return pixels
