"""SPEC.md says what the package does."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from underpaint_protocol import messages
from underpaint_protocol.client import ClientSession, Picture
from underpaint_protocol.errors import TABLE
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Request, Result, Submit, Tile, vocabulary
from underpaint_protocol.tiles import cells, name_of

FOLDER = Path(__file__).parents[2] / "protocol"
SPEC = (FOLDER / "SPEC.md").read_text(encoding="utf-8")
FRAMES: list[dict[str, Any]] = json.loads((FOLDER / "vectors/conversation.json").read_text(encoding="utf-8"))
EXAMPLE = SPEC[SPEC.index("## A conversation") : SPEC.index("The first frame in detail")]
IMAGE, TILES = image_of(2, 2, 4, bytes(range(16)), x=255, y=7)
MASK, SELECTION = image_of(2, 2, 1, b"\x00\x80\xff\xff", x=255, y=7)


def test_the_example_shows_the_frames_of_the_vectors() -> None:
    """Each frame of the example is that of the file, to the byte, and from the same side."""
    shown = [
        ("client" if arrow == "→" else "server", kind, "".join(hexadecimal.split()))
        for arrow, kind, hexadecimal in re.findall(
            r"^([→←]) (\w+) \{.*(?:\n {6}.*)*((?:\n {4}[0-9a-f]+$)+)", EXAMPLE, re.MULTILINE
        )
    ]
    assert shown == [(frame["from"], frame["message"]["type"], frame["hex"]) for frame in FRAMES]


def test_the_reference_client_holds_the_conversation() -> None:
    """Told what the server says there, it says what the client says there, and hands out the picture."""
    session = ClientSession("x")
    pictures: list[Picture] = []
    for frame in FRAMES:
        data = bytes.fromhex(frame["hex"])
        if frame["message"]["type"] == "hello":
            session.connected()
        if frame["from"] == "client":
            assert session.next_frame() == data
            continue
        events = session.receive(data)
        pictures.extend(event for event in events if isinstance(event, Picture))
        if frame["message"]["type"] == "welcome" and not session.open:
            request = Request("m", "inpaint", 2, 2, prompt="red", seed=7, image=IMAGE, mask=MASK)
            session.submit("a1", request, {**TILES, **SELECTION})
        if pictures and not session.running:
            session.acknowledge("a1")
    (picture,) = pictures
    assert picture.pixels.hex() == "e0202000e0202080e02020ffe02020ff"
    assert session.next_frame() is None


def test_the_tiles_of_the_example_are_those_of_its_pictures() -> None:
    """Every tile that travels is named by its content, and is one that a message named."""
    decoded = [vocabulary.decode(bytes.fromhex(frame["hex"])) for frame in FRAMES]
    named: set[bytes] = set()
    for message in decoded:
        if isinstance(message, Submit):
            named.update(name for image in message.request.images for name in image.tiles)
        elif isinstance(message, Result):
            named.update(message.image.tiles)
    tiles = [message for message in decoded if isinstance(message, Tile)]
    assert all(name_of(tile.data) == tile.name for tile in tiles)
    assert {tile.name for tile in tiles} == named - {IMAGE.tiles[0]}


def test_the_grid_is_drawn_right() -> None:
    """The sizes under the drawing of a picture on the grid are those of its cells."""
    sizes = [f"{cell.right - cell.left} × {cell.bottom - cell.top}" for cell in cells(200, 100, 400, 300)]
    assert ", ".join(sizes[:-1]) + f" and {sizes[-1]}" in SPEC


@pytest.mark.parametrize(("name", "cls"), list(vocabulary), ids=lambda value: value if isinstance(value, str) else "")
def test_every_message_is_listed_with_its_fields(name: str, cls: type[Any]) -> None:
    """The list of all messages has each of them, with each of its fields."""
    (row,) = re.findall(rf"^\| `{name}` \| .*$", SPEC, re.MULTILINE)
    assert all(f"`{field.name}`" in row for field in dataclasses.fields(cls))


@pytest.mark.parametrize("cls", [messages.Request, messages.Image, messages.Limits, messages.Model, messages.Worker])
def test_every_value_is_explained(cls: type[Any]) -> None:
    """Each field of a map inside a message is named."""
    names = {field.name for field in dataclasses.fields(cls)}
    assert not {name for name in names if not re.search(rf"`{name}`|[{{ ]{name}[,}}]", SPEC)}


def test_every_close_code_is_explained() -> None:
    """The codes that are our own are in the table."""
    for code in (messages.RESUMED_ELSEWHERE, messages.TOO_SLOW, messages.REVOKED):
        assert f"\n| {code} | " in SPEC


def test_every_error_that_it_names_exists() -> None:
    """What is said to be answered is in the table of errors."""
    named = set(re.findall(r"`error`\s(?:with\s)?`(\w+)`", SPEC))
    assert "unknown_session" in named
    assert named <= set(TABLE)
    section = SPEC[SPEC.index("These refuse a job for the moment") : SPEC.index("## Limits")]
    assert set(re.findall(r"`(\w+_\w+)`", section)) <= set(TABLE)


def test_its_links_lead_somewhere() -> None:
    """Contents and links are not broken."""
    headings = {
        re.sub(r"[^\w -]", "", line[3:].lower()).replace(" ", "-") for line in SPEC.splitlines() if line[:3] == "## "
    }
    for target in re.findall(r"\]\((?!http)([^)]+)\)", SPEC):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (FOLDER / target).is_file()
