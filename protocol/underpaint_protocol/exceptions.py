"""Every exception that this package raises.

::

    ProtocolError            anything below
    ├── MalformedMessage     bytes that are not one message of the language
    ├── UnknownMessage       a well-formed message of a type that nobody declared
    ├── InvalidField         a field that is missing, of the wrong type or out of its range
    ├── TileError            pixels that do not match the name, size or encoding of their tile
    ├── OutOfOrder           a message that may not come now, such as a second terminal event
    └── EmptySelection       nothing is selected inside the canvas

Each carries the `code` of its line in the table of `underpaint_protocol.errors`, so that either side can turn it
into the error that travels.
"""

from __future__ import annotations

from typing import Optional


class ProtocolError(Exception):
    """Base class of all errors of the protocol package."""

    code = "malformed_message"


class MalformedMessage(ProtocolError):
    """Bytes that are not one message: not msgpack, not a map, too deep, or without a type."""


class UnknownMessage(ProtocolError):
    """A message whose type is not in the vocabulary."""

    code = "unknown_message"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no message of type {name!r}")
        self.name = name


class InvalidField(ProtocolError):
    """A field is missing, of the wrong type, or out of its range.

    `field` is the dotted path from the message to the field; `job` is the job that the message spoke of, where it
    could be read, so that the answer finds its way to the right place in the client.
    """

    code = "invalid_field"

    def __init__(self, field: str, problem: str, job: Optional[str] = None) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem
        self.job = job


class TileError(ProtocolError):
    """Pixels that do not match the name, the size or the encoding of their tile."""

    code = "bad_tile"


class OutOfOrder(ProtocolError):
    """A message that may not come in the present state."""

    code = "out_of_order"


class EmptySelection(ProtocolError):
    """No pixel of the selection lies inside the canvas."""

    code = "empty_selection"
