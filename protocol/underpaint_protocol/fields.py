"""Fields of messages: a type, a range and a wire form, declared once beside the field's name.

    @dataclass(frozen=True)
    class Cancel(Record):
        job: str = text(64, pattern=IDENTIFIER)

A record checks its fields whenever one is made, so a record that exists is valid: whoever decodes one cannot receive
a bad value, and whoever encodes one cannot send it.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import MISSING, dataclass, field
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, Type, TypeVar

from .exceptions import InvalidField

R = TypeVar("R", bound="Record")

IDENTIFIER = r"[A-Za-z0-9_-]{1,64}"
MODEL_ID = r"(?!.*\.\.)[a-z0-9][a-z0-9._/:-]{0,99}"
SESSION_ID = r"[0-9a-f]{32}"
DIGEST_SIZE = 16
"""Bytes of the name of a tile."""


@dataclass(frozen=True)
class Kind:
    """What a field may hold.

    `check(where, value)` returns the value in its final form or raises `InvalidField`; `to_wire` turns it into what
    msgpack can carry.
    """

    check: Callable[[str, Any], Any]
    to_wire: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True)
class Record:
    """A frozen value whose fields are all declared with the functions of this module."""

    def __post_init__(self) -> None:
        for name, kind, _ in _declared(type(self)):
            object.__setattr__(self, name, kind.check(name, getattr(self, name)))

    def to_wire(self) -> Dict[str, Any]:
        """The record as a map from field names to values that msgpack can carry."""
        return {name: kind.to_wire(getattr(self, name)) for name, kind, _ in _declared(type(self))}

    @classmethod
    def from_wire(cls: Type[R], wire: Dict[str, Any]) -> R:
        """Make a record of a decoded map. Keys that this version does not know are ignored.

        Raises `InvalidField` if a required field is missing or a value is not allowed.
        """
        values = {}
        for name, _, default in _declared(cls):
            if name in wire:
                values[name] = wire[name]
            elif default is MISSING:
                raise InvalidField(name, "is missing")
        return cls(**values)


_Declared = Tuple[Tuple[str, Kind, Any], ...]
_FIELDS: Dict[Type[Record], _Declared] = {}


def _declared(cls: Type[Record]) -> _Declared:
    """The fields of a kind of record: name, what it may hold, and its default; looked up once, as every tile is one."""
    known = _FIELDS.get(cls)
    if known is None:
        known = tuple((spec.name, _kind(spec), spec.default) for spec in dataclasses.fields(cls))
        _FIELDS[cls] = known
    return known


def _kind(spec: Any) -> Kind:
    kind: Kind = spec.metadata["kind"]
    return kind


def _declare(kind: Kind, default: Any) -> Any:
    return field(default=default, metadata={"kind": kind})


def text(max_length: int, *, pattern: Optional[str] = None, default: Any = MISSING) -> Any:
    """A string of at most `max_length` characters that matches `pattern` as a whole, where one is given."""
    compiled = re.compile(pattern) if pattern else None

    def check(where: str, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidField(where, "must be text")
        if len(value) > max_length:
            raise InvalidField(where, f"may have at most {max_length} characters; it has {len(value)}")
        if compiled is not None and not compiled.fullmatch(value):
            raise InvalidField(where, "is not a valid name")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidField(where, "is not valid Unicode") from None
        return value

    return _declare(Kind(check), default)


def integer(low: int, high: int, *, default: Any = MISSING) -> Any:
    """A whole number from `low` to `high`, both included."""

    def check(where: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidField(where, "must be a whole number")
        if not low <= value <= high:
            raise InvalidField(where, f"must be from {low} to {high}; it was {value}")
        return value

    return _declare(Kind(check), default)


def real(low: float, high: float, *, default: Any = MISSING) -> Any:
    """A number from `low` to `high`, both included; never NaN."""

    def check(where: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidField(where, "must be a number")
        if not low <= value <= high:
            raise InvalidField(where, f"must be from {low:g} to {high:g}; it was {value:g}")
        return float(value)

    return _declare(Kind(check), default)


def flag(*, default: Any = MISSING) -> Any:
    """True or False."""

    def check(where: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidField(where, "must be true or false")
        return value

    return _declare(Kind(check), default)


def binary(max_length: int, *, default: Any = MISSING) -> Any:
    """At most `max_length` bytes."""

    def check(where: str, value: Any) -> bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise InvalidField(where, "must be bytes")
        if len(value) > max_length:
            raise InvalidField(where, f"may have at most {max_length} bytes; it has {len(value)}")
        return bytes(value)

    return _declare(Kind(check), default)


def digest(*, default: Any = MISSING) -> Any:
    """The name of a tile: exactly 16 bytes."""

    def check(where: str, value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) != DIGEST_SIZE:
            raise InvalidField(where, f"must be {DIGEST_SIZE} bytes")
        return value

    return _declare(Kind(check), default)


def digests(max_items: int, *, default: Any = MISSING) -> Any:
    """A tuple of at most `max_items` names of tiles; on the wire they are one string of bytes, one after another."""

    def check(where: str, value: Any) -> Tuple[bytes, ...]:
        joined = b"".join(value) if isinstance(value, tuple) else value
        if not isinstance(joined, bytes) or len(joined) % DIGEST_SIZE:
            raise InvalidField(where, f"must be bytes, {DIGEST_SIZE} for each tile")
        count = len(joined) // DIGEST_SIZE
        if count > max_items:
            raise InvalidField(where, f"may name at most {max_items} tiles; it names {count}")
        return tuple([joined[start : start + DIGEST_SIZE] for start in range(0, len(joined), DIGEST_SIZE)])

    return _declare(Kind(check, b"".join), default)


def choice(options: Sequence[Any], *, default: Any = MISSING) -> Any:
    """One of `options`."""
    allowed = tuple(options)

    def check(where: str, value: Any) -> Any:
        if not isinstance(value, (str, int)) or isinstance(value, bool) or value not in allowed:
            raise InvalidField(where, "must be one of " + ", ".join(str(option) for option in allowed))
        return value

    return _declare(Kind(check), default)


def record(cls: Type[Record], *, default: Any = MISSING) -> Any:
    """A record inside a record; a map on the wire."""
    return _declare(_record_kind(cls), default)


def sequence(of: Any, max_items: int, *, default: Any = MISSING) -> Any:
    """A tuple of at most `max_items` values; `of` is a record class or another declaration, such as `text(20)`."""
    kind = _element_kind(of)

    def check(where: str, value: Any) -> Tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise InvalidField(where, "must be a list")
        if len(value) > max_items:
            raise InvalidField(where, f"may have at most {max_items} items; it has {len(value)}")
        return tuple(kind.check(f"{where}[{index}]", item) for index, item in enumerate(value))

    return _declare(Kind(check, lambda value: [kind.to_wire(item) for item in value]), default)


def optional(of: Any) -> Any:
    """A value as declared by `of`, or None, which is also the default."""
    kind = _element_kind(of)

    def check(where: str, value: Any) -> Any:
        return None if value is None else kind.check(where, value)

    return _declare(Kind(check, lambda value: None if value is None else kind.to_wire(value)), None)


def _element_kind(of: Any) -> Kind:
    return _record_kind(of) if isinstance(of, type) and issubclass(of, Record) else _kind(of)


def _record_kind(cls: Type[Record]) -> Kind:
    def check(where: str, value: Any) -> Record:
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise InvalidField(where, "must be a map")
        try:
            return cls.from_wire(value)
        except InvalidField as error:
            raise InvalidField(f"{where}.{error.field}", error.problem) from None

    return Kind(check, lambda value: value.to_wire())
