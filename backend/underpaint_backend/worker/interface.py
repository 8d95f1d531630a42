"""What a worker and the server say to each other over a pipe: the language of the clients, and a little more.

Each message travels as its length in four bytes, big endian, and its bytes. A worker gets the raw `Tile`s of a job, its
`Submit`, and perhaps its `Cancel`; it sends `Progress` and `Preview`, the `Tile`s of each `Result` before it, and one
of `Done`, `Failed`, `Cancelled` for each job; but first `Ready`, or `Unusable`. The server numbers what is state. This
module never imports torch.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from underpaint_protocol import messages
from underpaint_protocol.fields import Record, integer, text
from underpaint_protocol.vocabulary import Vocabulary

MAX_FRAME = messages.MAX_FRAME
PACKED = ("fp8", "int8", "nf4")
PRECISIONS = ("auto", "float32", "bfloat16", "float16", *PACKED)
"""What a worker may be told to calculate in, and to keep weights in; those that are packed have fewer bits."""
OFFLOADS = ("auto", "none", "group")
"""Whether weights may, may not or must wait elsewhere until their layer's turn."""
HEADER = struct.Struct(">I")

vocabulary = Vocabulary(MAX_FRAME)
for name, cls in messages.vocabulary:
    vocabulary.message(name)(cls)


@vocabulary.message("ready")
@dataclass(frozen=True)
class Ready(Record):
    """Worker: libraries are imported and the device is open; said again when the words change.

    `device` is what it runs on, and what it calculates and keeps weights in: "cuda:0 NVIDIA L4, float16".
    """

    device: str = text(200)


@vocabulary.message("unusable")
@dataclass(frozen=True)
class Unusable(Record):
    """Worker: the device that was asked for cannot be opened, for this reason. It ends now, and another would, too."""

    detail: str = text(500)


@vocabulary.message("memory_query")
@dataclass(frozen=True)
class MemoryQuery(Record):
    """Server: how much memory is free?"""


@vocabulary.message("memory")
@dataclass(frozen=True)
class Memory(Record):
    """Worker: free and total memory of the device, in bytes."""

    free: int = integer(0, 2**63 - 1)
    total: int = integer(0, 2**63 - 1)


def frame(message: Record) -> bytes:
    """A message with its length before it."""
    data = vocabulary.encode(message)
    return HEADER.pack(len(data)) + data


def read_message(stream: BinaryIO) -> Record | None:
    """The next message from a blocking stream; None at its end.

    Raises `EOFError` if the stream ends inside a message, and `ProtocolError` for a message that is none.
    """
    header = stream.read(HEADER.size)
    if not header:
        return None
    if len(header) < HEADER.size:
        raise EOFError("the stream ended inside a message")
    (length,) = HEADER.unpack(header)
    if length > MAX_FRAME:
        raise EOFError(f"a message of {length} bytes was announced")
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("the stream ended inside a message")
    return vocabulary.decode(data)
