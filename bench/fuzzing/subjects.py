"""One or more right messages of every type, from which wrong ones are made."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import cache
from typing import Any

from underpaint_protocol.errors import describe
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    Accepted,
    Acknowledge,
    Cancel,
    Cancelled,
    Done,
    Error,
    Failed,
    Fetch,
    Have,
    Hello,
    Image,
    Limits,
    Missing,
    Model,
    Position,
    Preview,
    Progress,
    Request,
    Result,
    Resume,
    Resumed,
    Started,
    Status,
    Submit,
    Tile,
    Welcome,
    Worker,
    vocabulary,
)
from underpaint_protocol.tiles import MAX_TILE, name_of

SIDE = 16
PIXELS = bytes(range(256)) * 4
SELECTION = bytes(range(256))
ABSENT = bytes(16)
"""A name that no tile has."""
FOREIGN_SESSION, FOREIGN_JOB = "0" * 32, "somebody-elses"

PAINT = Request("primer-inpaint", "text_to_image", SIDE, SIDE, prompt="a red heart", steps=1)
INPAINT = replace(
    PAINT,
    task="inpaint",
    image=Image(SIDE, SIDE, 4, (name_of(PIXELS),)),
    mask=Image(SIDE, SIDE, 1, (name_of(SELECTION),)),
)
INFO = describe("internal")
READY = Worker("ready", "cpu")
LIMITS = Limits(1 << 24, 64, 8, 1 << 30, 3600, 30)
MODEL = Model("a/b", "A", "primer", ("inpaint",), ("ddim",), 1 << 14, 8, 12, 5.0, "ddim")

FROM_CLIENT: tuple[Record, ...] = (
    Have(1, (ABSENT, name_of(PIXELS))),
    Have(2, tuple(number.to_bytes(16, "big") for number in range(300))),
    Tile(name_of(PIXELS), len(PIXELS), PIXELS),
    Tile(name_of(SELECTION), len(SELECTION), zlib.compress(SELECTION), "zlib"),
    Submit("job", PAINT),
    Submit("job", INPAINT),
    Submit("other", replace(INPAINT, strength=0.5, steps=4, guidance=2.0, scheduler="euler", seed=7), False, "job"),
    Cancel("job"),
    Cancel(FOREIGN_JOB),
    Acknowledge("job"),
    Fetch("job", (ABSENT,)),
    Fetch(FOREIGN_JOB, (ABSENT,)),
    Resume(FOREIGN_SESSION, 0),
    Hello("a program", ("zlib", "raw")),
)
FROM_SERVER: tuple[Record, ...] = (
    Welcome("underpaint", FOREIGN_SESSION, READY, (MODEL,), LIMITS),
    Resumed(FOREIGN_SESSION, ("job",)),
    Status(READY),
    Missing((ABSENT,), 1),
    Accepted("job", 0, 1),
    Position("job", 3),
    Started("job", 1, 2),
    Progress("job", "denoising", 0.5, 1, 2, 3),
    Preview("job", 0, 1, 8, 8, b"\xff\xd8", 1e9),
    Result("job", 0, 7, Image(SIDE, SIDE, 4, (ABSENT,)), 4),
    Done("job", 1.0, 5),
    Failed("job", INFO, 6),
    Cancelled("job", 7),
    Error(INFO, "job"),
)


def wire_of(message: Record) -> dict[str, Any]:
    """A message as the map that travels, to be changed."""
    return {"type": vocabulary.name_of(message), **message.to_wire()}


@cache
def bomb() -> bytes:
    """Zeros, 256 MiB of them, as a zlib stream that a tile has room for."""
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    stream = b"".join([*(packer.compress(zeros) for _ in range(256)), packer.flush()])
    assert len(stream) < MAX_TILE
    return stream
