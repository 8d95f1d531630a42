"""Writes `conversation.json`, the conversation that SPEC.md explains, and the example there, frame by frame.

A client paints into 2 × 2 pixels that lie across a line of the grid, loses its connection, and comes back.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from make import vector
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    Accepted,
    Acknowledge,
    Done,
    Fetch,
    Have,
    Hello,
    Limits,
    Missing,
    Model,
    Preview,
    Progress,
    Request,
    Result,
    Resume,
    Resumed,
    Started,
    Submit,
    Tile,
    Welcome,
    Worker,
    vocabulary,
)

CLIENT, SERVER = "client", "server"
FIRST, SECOND = "11" * 16, "22" * 16
JOB = "a1"
MODEL = Model("m", "M", "f", ("inpaint",), ("ddim",), 16384, 8, 12, 2.5, "ddim")
LIMITS = Limits(16777216, 64, 8, 1073741824, 86400, 30)
IMAGE, PIXELS = image_of(2, 2, 4, bytes(range(16)), x=255, y=7)
MASK, SELECTION = image_of(2, 2, 1, b"\x00\x80\xff\xff", x=255, y=7)
PICTURE, PAINTED = image_of(2, 2, 4, bytes.fromhex("e0202000e0202080e02020ffe02020ff"), x=255, y=7)
REQUEST = Request("m", "inpaint", 2, 2, prompt="red", seed=7, image=IMAGE, mask=MASK)
NAMES = (*IMAGE.tiles, *MASK.tiles)


def tile(name: bytes) -> Tile:
    """The message that carries one of the tiles."""
    data = {**PIXELS, **SELECTION, **PAINTED}[name]
    return Tile(name, len(data), data)


CONVERSATION: tuple[tuple[str, Record], ...] = (
    (CLIENT, Hello("x", ("raw",))),
    (SERVER, Welcome("s", FIRST, Worker("ready", "cpu"), (MODEL,), LIMITS)),
    (CLIENT, Have(1, NAMES)),
    (SERVER, Missing(NAMES[1:], query=1)),
    *((CLIENT, tile(name)) for name in NAMES[1:]),
    (CLIENT, Submit(JOB, REQUEST)),
    (SERVER, Accepted(JOB, 0, seq=1)),
    (SERVER, Started(JOB, 1, seq=2)),
    (SERVER, Progress(JOB, "denoising", 0.5, 6, 12, seq=3)),
    (SERVER, Preview(JOB, 0, 6, 1, 1, b"\xff\xd8\xff\xd9", 1764000000.25)),
    (CLIENT, Hello("x", ("raw",))),
    (SERVER, Welcome("s", SECOND, Worker("ready", "cpu"), (MODEL,), LIMITS)),
    (CLIENT, Resume(FIRST, 3)),
    (SERVER, Resumed(FIRST, (JOB,))),
    (SERVER, Result(JOB, 0, 7, PICTURE, seq=5)),
    (CLIENT, Fetch(JOB, PICTURE.tiles)),
    (SERVER, Done(JOB, 1.5, seq=6)),
    *((SERVER, tile(name)) for name in PICTURE.tiles),
    (CLIENT, Acknowledge(JOB)),
)


LOST = "\n  the connection is lost here, and the client opens another\n"


def main() -> None:
    """Write the file beside this script, and the block of SPEC.md that shows the same."""
    frames = [{"from": who, **vector(message)} for who, message in CONVERSATION]
    path = Path(__file__).with_name("conversation.json")
    path.write_text(json.dumps(frames, indent=1, ensure_ascii=False) + "\n")
    spec = Path(__file__).parents[1] / "SPEC.md"
    words = spec.read_text(encoding="utf-8")
    heading = words.index("## A conversation")
    begin = words.index("```\n", heading) + 4
    end = words.index("```", begin)
    spec.write_text(words[:begin] + example() + words[end:], encoding="utf-8")


def example() -> str:
    """The conversation as SPEC.md shows it: who says what, and its bytes."""
    lines: list[str] = []
    for number, (who, message) in enumerate(CONVERSATION):
        if number and isinstance(message, Hello):
            lines.append(LOST)
        what = f"{'→' if who == CLIENT else '←'} {vocabulary.name_of(message)} {shown(message.to_wire())}"
        lines += textwrap.wrap(what, 118, subsequent_indent=6 * " ", break_long_words=False, break_on_hyphens=False)
        lines += textwrap.wrap(vocabulary.encode(message).hex(), 116, initial_indent=4 * " ", subsequent_indent=4 * " ")
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """A value of a message, for people."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {shown(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, bytes):
        return f"‹{value.hex()}›"
    return "nil" if value is None else json.dumps(value)


if __name__ == "__main__":
    main()
