"""Blobs: pixels by content, cut into chunks for the wire and put together again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, Dict, Iterator, List, Optional

from .exceptions import BlobError
from .messages import CHUNK, BlobChunk, Image


def digest_of(data: bytes) -> str:
    """The name of a blob: BLAKE2b with 128 bits, in hexadecimal (RFC 7693)."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def image_of(width: int, height: int, channels: int, pixels: bytes) -> Image:
    """The `Image` that names raw pixels.

    Raises `BlobError` if there are not exactly width x height x channels bytes.
    """
    if len(pixels) != width * height * channels:
        raise BlobError(f"{width} x {height} x {channels} pixels have {len(pixels)} bytes")
    return Image(width, height, channels, digest_of(pixels))


def chunks(blob: str, data: bytes) -> Iterator[BlobChunk]:
    """Cut the blob called `blob` into messages."""
    view = memoryview(data)
    for offset in range(0, len(data), CHUNK):
        yield BlobChunk(blob, len(data), offset, bytes(view[offset : offset + CHUNK]))


class _Assembly:
    """A blob of which not everything has come."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.received = 0
        self.pieces: List[BlobChunk] = []
        self._hash: Any = hashlib.blake2b(digest_size=16)

    def add(self, chunk: BlobChunk) -> None:
        if chunk.size != self.size or chunk.offset != self.received:
            raise BlobError("a piece is missing or came twice")
        self.pieces.append(chunk)
        self.received += len(chunk.data)
        self._hash.update(chunk.data)

    @property
    def complete(self) -> bool:
        return self.received == self.size

    def verify(self, blob: str) -> None:
        if self._hash.hexdigest() != blob:
            raise BlobError("its content does not match its name")


class BlobStore:
    """Blobs that came in, complete ones and unfinished ones, bounded in bytes.

    When the bound is reached, the complete blobs that were used least recently are dropped.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._complete: OrderedDict[str, List[BlobChunk]] = OrderedDict()
        self._partial: Dict[str, _Assembly] = {}

    def __contains__(self, blob: str) -> bool:
        return blob in self._complete

    def add(self, chunk: BlobChunk) -> bool:
        """Take a piece in; true if its blob is complete now.

        Raises `BlobError` if the piece does not continue its blob, if the finished blob does not match its name, or
        if the blob cannot fit; what had come of that blob is dropped.
        """
        if chunk.blob in self._complete:
            self._complete.move_to_end(chunk.blob)
            return True
        assembly = self._partial.get(chunk.blob)
        if assembly is None:
            assembly = self._begin(chunk)
        try:
            assembly.add(chunk)
            if not assembly.complete:
                return False
            assembly.verify(chunk.blob)
        except BlobError:
            self._forget(chunk.blob)
            raise
        self._complete[chunk.blob] = self._partial.pop(chunk.blob).pieces
        return True

    def pieces(self, blob: str) -> Optional[List[BlobChunk]]:
        """The chunks of a complete blob, in order; None if it is not here."""
        found = self._complete.get(blob)
        if found is not None:
            self._complete.move_to_end(blob)
        return found

    def take(self, blob: str) -> Optional[bytes]:
        """The bytes of a complete blob, which is dropped from the store; None if it is not here."""
        found = self._complete.pop(blob, None)
        if found is None:
            return None
        self.bytes -= found[0].size
        return b"".join(piece.data for piece in found)

    def _begin(self, chunk: BlobChunk) -> _Assembly:
        if chunk.size > self.max_bytes:
            raise BlobError(f"it has {chunk.size} bytes; {self.max_bytes} are allowed")
        while self.bytes + chunk.size > self.max_bytes and self._complete:
            _, dropped = self._complete.popitem(last=False)
            self.bytes -= dropped[0].size
        if self.bytes + chunk.size > self.max_bytes:
            raise BlobError("too many unfinished blobs")
        self.bytes += chunk.size
        assembly = self._partial[chunk.blob] = _Assembly(chunk.size)
        return assembly

    def _forget(self, blob: str) -> None:
        self.bytes -= self._partial.pop(blob).size
