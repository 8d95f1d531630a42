"""The pictures of one job on their way to the client: results that lack tiles, and what came after them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Deque, Dict, List, Optional, Set, Tuple, Union

from .errors import ErrorInfo
from .fields import Record
from .images import pixels_of
from .messages import Done, Failed, Result


@dataclass(frozen=True)
class Picture:
    """A finished picture with its pixels: red, green, blue and straight alpha, sRGB, row by row.

    Its corner lies at (`x`, `y`) of the canvas; `depth` is 8 or 16 bits a channel, 16 in little-endian.
    """

    job: str
    index: int
    seed: int
    width: int
    height: int
    pixels: bytearray = field(repr=False)
    x: int = 0
    y: int = 0
    depth: int = 8


Event = Union[Record, Picture]


class Download:
    """State messages of one job in order, held back from the first picture on that is not complete."""

    def __init__(self) -> None:
        self._held: Deque[Record] = deque()
        self._tiles: Dict[bytes, bytes] = {}
        self._missing: Dict[bytes, None] = {}
        self._first: Set[bytes] = set()  # what the first held message still waits for
        self._indexes: Set[int] = set()  # of the pictures that the program has or will have
        self._damage: Optional[ErrorInfo] = None

    @property
    def missing(self) -> Tuple[bytes, ...]:
        """Names of the tiles that have not come, in the order in which they are needed."""
        return tuple(self._missing)

    def awaits(self, name: bytes) -> bool:
        """Whether a picture needs this tile."""
        return name in self._missing

    def hold(self, message: Record) -> Tuple[bytes, ...]:
        """Add a state message; the names of the tiles to be fetched for it.

        A picture that came before is left out: a job that starts again makes the same ones.
        """
        if self._damage is not None:
            self._held.extend(self._damaged(message, self._damage))
            return ()
        if isinstance(message, Result):
            if message.index in self._indexes:
                return ()
            self._indexes.add(message.index)
        self._held.append(message)
        wanted = self._wanted(message)
        self._missing.update(dict.fromkeys(wanted))
        if len(self._held) == 1:
            self._first = set(wanted)
        return wanted

    def take(self, name: bytes, data: bytes) -> None:
        """A tile that is awaited is here; `data` was checked against `name`."""
        del self._missing[name]
        self._tiles[name] = data
        self._first.discard(name)

    def release(self) -> List[Event]:
        """What may be given out now, in order.

        Raises `TileError` if a tile has another size than its place in a picture.
        """
        events: List[Event] = []
        while self._held and not self._first:
            message = self._held.popleft()
            events.append(self._picture(message) if isinstance(message, Result) else message)
            self._first = {name for name in _tiles_of(self._held[0]) if name in self._missing} if self._held else set()
        if not self._held:
            self._tiles.clear()
        return events

    def give_up(self, error: ErrorInfo) -> None:
        """The server lost a tile. Pictures that are not out yet never will be, and the job fails with `error`."""
        self._damage = error
        self._forget_held()
        self._held = deque(rest for message in self._held for rest in self._damaged(message, error))
        self._missing.clear()
        self._first.clear()

    def forget(self) -> None:
        """The job begins anew: nothing of what is held back will be completed."""
        self._forget_held()
        for gone in (self._held, self._tiles, self._missing, self._first):
            gone.clear()
        self._damage = None

    def _forget_held(self) -> None:
        """Pictures that are held back may come again."""
        self._indexes.difference_update(held.index for held in self._held if isinstance(held, Result))

    @staticmethod
    def _damaged(message: Record, error: ErrorInfo) -> List[Record]:
        if isinstance(message, Done):
            return [Failed(message.job, error, message.seq)]
        return [] if isinstance(message, Result) else [message]

    def _wanted(self, message: Record) -> Tuple[bytes, ...]:
        names = dict.fromkeys(_tiles_of(message))
        return tuple(name for name in names if name not in self._tiles and name not in self._missing)

    def _picture(self, result: Result) -> Picture:
        image = result.image
        pixels = pixels_of(image, self._tiles)
        return Picture(
            result.job, result.index, result.seed, image.width, image.height, pixels, image.x, image.y, image.depth
        )


def _tiles_of(message: Record) -> Tuple[bytes, ...]:
    return message.image.tiles if isinstance(message, Result) else ()
