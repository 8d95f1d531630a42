"""Right messages, from which wrong ones are made: the golden vectors, and some that a real daemon can paint."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    Acknowledge,
    Cancel,
    Fetch,
    Have,
    Hello,
    Pull,
    Request,
    Resume,
    Submit,
    Tile,
    vocabulary,
)
from underpaint_protocol.tiles import MAX_TILE

GOLDEN = Path(__file__).parents[2] / "protocol" / "vectors" / "messages.json"
OF_CLIENTS = (Acknowledge, Cancel, Fetch, Have, Hello, Pull, Resume, Submit, Tile)
"""What a daemon takes."""

SIDE = 16
PIXELS = bytes(range(256)) * 4
ABSENT = bytes(16)
"""A name that no tile has."""
FOREIGN_SESSION, FOREIGN_JOB = "0" * 32, "somebody-elses"


@cache
def from_clients() -> tuple[Record, ...]:
    """One or more of every type that a daemon takes. Jobs are small, and paint in one step or a few."""
    image, canvas = image_of(SIDE, SIDE, 4, PIXELS)
    mask, selection = image_of(SIDE, SIDE, 1, bytes(range(256)))
    paint = Request("primer-inpaint", "text_to_image", SIDE, SIDE, prompt="a red heart", steps=1)
    inpaint = replace(paint, task="inpaint", image=image, mask=mask)
    slow = replace(inpaint, strength=0.5, steps=4, guidance=2.0, scheduler="euler", seed=7)
    return (
        *(message for message in _golden() if isinstance(message, OF_CLIENTS)),
        Have(2, tuple(number.to_bytes(16, "big") for number in range(300))),
        *(Tile(name, len(data), data) for name, data in canvas.items()),
        *(Tile(name, len(data), zlib.compress(data), "zlib") for name, data in selection.items()),
        *(Submit("job", paint), Submit("job", inpaint), Submit("other", slow, False, "job")),
        *(Cancel("job"), Acknowledge("job"), Fetch("job", (ABSENT,))),
        *(Cancel(FOREIGN_JOB), Fetch(FOREIGN_JOB, (ABSENT,)), Resume(FOREIGN_SESSION, 0)),
    )


@cache
def from_servers() -> tuple[Record, ...]:
    """One or more of every type that only a server may say."""
    return tuple(message for message in _golden() if not isinstance(message, OF_CLIENTS))


def _golden() -> list[Record]:
    vectors = json.loads(GOLDEN.read_text(encoding="utf-8"))["messages"]
    return [vocabulary.decode(bytes.fromhex(vector["hex"])) for vector in vectors]


@cache
def bomb() -> bytes:
    """Zeros, 256 MiB of them, as a zlib stream that a tile has room for."""
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    stream = b"".join([*(packer.compress(zeros) for _ in range(256)), packer.flush()])
    assert len(stream) < MAX_TILE
    return stream
