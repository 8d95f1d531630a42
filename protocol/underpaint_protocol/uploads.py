"""What a client has to say, in the order in which it is said: pixels go last, so that a cancel never waits for them."""

from __future__ import annotations

from collections import deque
from typing import Deque, Mapping, NamedTuple, Optional, Sequence, Union

from .canvas import Base, Canvas
from .encodings import ENCODINGS, XOR, encode
from .fields import Record
from .messages import Submit, Tile, vocabulary

FEW = 16
"""Changed tiles up to which they travel as differences where they would otherwise travel raw. A stroke changes four at
most; where everything changed, packing takes longer than copying."""


class _Bulk(NamedTuple):
    """A tile of a job, or the request that goes after its tiles."""

    job: str
    item: Union[Submit, bytes]
    tiles: Mapping[bytes, bytes]
    bases: Mapping[bytes, Base]


class Outgoing:
    """The two lanes of a connection: control, and pixels with the requests that need them."""

    def __init__(self) -> None:
        self._control: Deque[Record] = deque()
        self._bulk: Deque[_Bulk] = deque()
        self._encoding = "raw"
        self._differences = False
        self._canvas = Canvas()

    def clear(self) -> None:
        """The connection is gone, and so is what it should have carried."""
        self._control.clear()
        self._bulk.clear()

    def agree(self, wanted: Sequence[str], understood: Sequence[str]) -> None:
        """From here on tiles go in the first encoding that both sides know; raw if there is none."""
        self._encoding = next((one for one in wanted if one in understood and one in ENCODINGS), "raw")
        self._differences = XOR in understood

    def accepted(self, submit: Submit, tiles: Mapping[bytes, bytes]) -> None:
        """The server has the pixels of this request: what is painted over them can travel as a difference."""
        self._canvas.show(submit.request, tiles)

    def say(self, message: Record) -> None:
        """Add a message that does not wait for pixels."""
        self._control.append(message)

    def submit(self, submit: Submit, names: Sequence[bytes], tiles: Mapping[bytes, bytes], *, whole: bool) -> None:
        """Add the tiles `names`, and then the request that needs them. `whole`: none may go as a difference."""
        bases: Mapping[bytes, Base] = {}
        if self._differences and not whole and (self._encoding != "raw" or len(names) <= FEW):
            bases = self._canvas.bases_of(submit.request)
        self._bulk.extend(_Bulk(submit.job, name, tiles, bases) for name in names)
        self._bulk.append(_Bulk(submit.job, submit, tiles, bases))

    def drop(self, job: str) -> None:
        """Send no more pixels for this job, nor its request."""
        self._bulk = deque(bulk for bulk in self._bulk if bulk.job != job)

    def next_frame(self) -> Optional[bytes]:
        """The next frame; None if there is nothing to say. Tiles are packed only now, one at a time."""
        if self._control:
            return vocabulary.encode(self._control.popleft())
        if not self._bulk:
            return None
        _, item, tiles, bases = self._bulk.popleft()
        if isinstance(item, Submit):
            return vocabulary.encode(item)
        return vocabulary.encode(self._packed(item, tiles[item], bases.get(item)))

    def _packed(self, name: bytes, data: bytes, base: Optional[Base]) -> Tile:
        if base is not None:
            difference = encode(XOR, data, base.data)
            if len(difference) < len(data) // 4:
                return Tile(name, len(data), difference, XOR, base.name)
        packed = encode(self._encoding, data)
        if len(packed) < len(data):
            return Tile(name, len(data), packed, self._encoding)
        return Tile(name, len(data), data)
