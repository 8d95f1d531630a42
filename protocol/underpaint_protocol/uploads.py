"""What a client has to say, in the order in which it is said: pixels go last, so that a cancel never waits for them."""

from __future__ import annotations

from collections import deque
from typing import Deque, Iterable, Mapping, NamedTuple, Optional, Sequence, Union

from .encodings import ENCODINGS, encode
from .fields import Record
from .messages import Submit, Tile, vocabulary


class _Bulk(NamedTuple):
    """A tile of a job, or the request that goes after its tiles."""

    job: str
    item: Union[Submit, bytes]
    tiles: Mapping[bytes, bytes]


class Outgoing:
    """The two lanes of a connection: control, and pixels with the requests that need them."""

    def __init__(self) -> None:
        self._control: Deque[Record] = deque()
        self._bulk: Deque[_Bulk] = deque()
        self._encoding = "raw"

    def clear(self) -> None:
        """The connection is gone, and so is what it should have carried."""
        self._control.clear()
        self._bulk.clear()

    def agree(self, wanted: Sequence[str], understood: Sequence[str]) -> None:
        """From here on tiles go in the first encoding that both sides know; raw if there is none."""
        self._encoding = next((one for one in wanted if one in understood and one in ENCODINGS), "raw")

    def say(self, message: Record) -> None:
        """Add a message that does not wait for pixels."""
        self._control.append(message)

    def submit(self, submit: Submit, names: Iterable[bytes], tiles: Mapping[bytes, bytes]) -> None:
        """Add the tiles `names`, and then the request that needs them."""
        self._bulk.extend(_Bulk(submit.job, name, tiles) for name in names)
        self._bulk.append(_Bulk(submit.job, submit, tiles))

    def drop(self, job: str) -> None:
        """Send no more pixels for this job, nor its request."""
        self._bulk = deque(bulk for bulk in self._bulk if bulk.job != job)

    def next_frame(self) -> Optional[bytes]:
        """The next frame; None if there is nothing to say. Tiles are packed only now, one at a time."""
        if self._control:
            return vocabulary.encode(self._control.popleft())
        if not self._bulk:
            return None
        _, item, tiles = self._bulk.popleft()
        return vocabulary.encode(item if isinstance(item, Submit) else self._packed(item, tiles[item]))

    def _packed(self, name: bytes, data: bytes) -> Tile:
        packed = encode(self._encoding, data)
        if len(packed) < len(data):
            return Tile(name, len(data), packed, self._encoding)
        return Tile(name, len(data), data)
