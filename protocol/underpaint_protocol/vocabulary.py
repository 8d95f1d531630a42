"""From messages to bytes and back: a set of message types, encoded as msgpack maps with a `type` key."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple, Type, TypeVar

import msgpack  # type: ignore[import-untyped,unused-ignore]

from .exceptions import InvalidField, MalformedMessage, UnknownMessage
from .fields import IDENTIFIER, Record

C = TypeVar("C", Dict[str, Any], List[Any])
M = TypeVar("M", bound=Record)

MAX_DEPTH = 8
"""Maps and lists inside one another, at most; the deepest message of the language has 4."""


class Bounds(NamedTuple):
    """What one message may have: values in all its maps and lists together, items in one list, keys in one map.

    A frame full of empty lists would keep whoever reads it for seconds.
    """

    values: int
    items: int
    keys: int


FROM_CLIENT = Bounds(1 << 10, 256, 64)
"""The largest that a client has to say, a `submit`, has 213, 16 and 18. These are what keep a daemon from others."""

FROM_SERVER = Bounds(1 << 15, 4096, 256)
"""A `welcome` with 1000 models has fewer values, and a `resumed` with all jobs as many items."""

_LIMITS = {"max_str_len": 1 << 19, "max_ext_len": 0}
"""The longest prompt has 100,000 characters, of up to four bytes each."""


class Vocabulary:
    """Message types by name. A new message is one dataclass under this object's `message` decorator."""

    def __init__(self, max_frame: int) -> None:
        """`max_frame` is the largest encoded message in bytes."""
        self.max_frame = max_frame
        self._by_name: Dict[str, Type[Record]] = {}
        self._names: Dict[Type[Record], str] = {}

    def message(self, name: str) -> Callable[[Type[M]], Type[M]]:
        """Class decorator: declare a record as the message `name`."""

        def declare(cls: Type[M]) -> Type[M]:
            if name in self._by_name:
                raise ValueError(f"two messages are called {name!r}")
            self._by_name[name] = cls
            self._names[cls] = name
            return cls

        return declare

    def __iter__(self) -> Iterator[Tuple[str, Type[Record]]]:
        return iter(self._by_name.items())

    def name_of(self, message: Record) -> str:
        """The `type` under which a message travels."""
        return self._names[type(message)]

    def to_wire(self, message: Record) -> Dict[str, Any]:
        """One message as the map that travels: its `type` and its fields."""
        return {"type": self.name_of(message), **message.to_wire()}

    def encode(self, message: Record) -> bytes:
        """One message as bytes: that map in msgpack."""
        packed: bytes = msgpack.packb(self.to_wire(message), use_bin_type=True)
        return packed

    def decode(self, data: bytes, bounds: Bounds = FROM_CLIENT) -> Record:
        """The message in `data`. Whoever listens to a server takes the bounds `FROM_SERVER`.

        Raises `MalformedMessage` if the bytes are no message at all, `UnknownMessage` for a type outside this
        vocabulary, and `InvalidField` for a value that its field does not allow.
        """
        wire = self._unpack(data, bounds)
        name = wire.pop("type", None)
        if not isinstance(name, str):
            raise MalformedMessage("the message has no type")
        cls = self._by_name.get(name)
        if cls is None:
            raise UnknownMessage(name[:64])
        try:
            return cls.from_wire(wire)
        except InvalidField as error:
            raise InvalidField(error.field, error.problem, job=_job_of(wire)) from None

    def _unpack(self, data: bytes, bounds: Bounds) -> Dict[str, Any]:
        if len(data) > self.max_frame:
            raise MalformedMessage(f"the message has {len(data)} bytes; {self.max_frame} are allowed")
        try:
            count = _Count(bounds.values)
            wire = msgpack.unpackb(
                data,
                raw=False,
                strict_map_key=True,
                max_array_len=bounds.items,
                max_map_len=bounds.keys,
                max_bin_len=self.max_frame,
                ext_hook=_no_extensions,
                list_hook=count,
                object_hook=count,
                **_LIMITS,
            )
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise MalformedMessage(f"the bytes are not a message: {error}") from None
        if not isinstance(wire, dict) or _depth(wire) > MAX_DEPTH:
            raise MalformedMessage("the message is not a map, or nests too deeply")
        return wire


class _Count:
    """Counts the values of one message while it is unpacked: called with each map and list once that is complete."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values = 0
        self._containers = 0

    def __call__(self, container: C) -> C:
        self._values += len(container)
        self._containers += 1  # All but one of them are values of one that may not be complete yet.
        if max(self._values, self._containers - 1) > self._most:
            raise ValueError(f"there are more than {self._most} values in it")
        return container


def _no_extensions(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not part of the language")


def _job_of(wire: Dict[str, Any]) -> Any:
    job = wire.get("job")
    return job if isinstance(job, str) and re.fullmatch(IDENTIFIER, job) else None


def _depth(root: Dict[str, Any]) -> int:
    """How many maps and lists lie inside one another, counted without recursion, and no further than matters."""
    deepest = 0
    pending: List[Tuple[Any, int]] = [(root, 1)]
    while pending and deepest <= MAX_DEPTH:
        value, depth = pending.pop()
        deepest = max(deepest, depth)
        items = value.values() if isinstance(value, dict) else value
        pending.extend([(item, depth + 1) for item in items if isinstance(item, (dict, list))])
    return deepest
