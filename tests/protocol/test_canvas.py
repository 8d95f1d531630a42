"""What a brush stroke costs: tiles travel as the difference to what lay at their place."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Optional

import pytest
from underpaint_protocol.client import ClientSession
from underpaint_protocol.encodings import decode
from underpaint_protocol.exceptions import InvalidField
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    Accepted,
    Error,
    Have,
    Limits,
    Missing,
    Request,
    Submit,
    Tile,
    Welcome,
    Worker,
    vocabulary,
)
from underpaint_protocol.tiles import name_of
from underpaint_protocol.uploads import FEW

WIDE, HIGH = 256 * (FEW + 2), 256
BEFORE = random.Random(7).randbytes(WIDE * HIGH)
LIMITS = Limits(1 << 24, 64, 8, 1 << 30, 3600, 30)
REQUEST = Request("m", "inpaint", WIDE, HIGH)


class Talk:
    """A session that has greeted a server of some encodings."""

    def __init__(self, wanted: str, understood: tuple[str, ...]) -> None:
        self.session = ClientSession("test", [wanted])
        self.session.connected()
        self.said()
        self.hear(Welcome("s", "1" * 32, Worker("ready"), (), LIMITS, understood))

    def hear(self, message: object) -> None:
        """The server says something."""
        assert list(self.session.receive(vocabulary.encode(message))) is not None  # type: ignore[arg-type]

    def said(self) -> list[object]:
        """What the client has to say."""
        messages = []
        while (frame := self.session.next_frame()) is not None:
            messages.append(vocabulary.decode(frame))
        return messages

    def submit(self, job: str, pixels: bytes) -> list[object]:
        """Submit a mask whose every tile is missing unless it was there before; what is said after `missing`."""
        image, tiles = image_of(WIDE, HIGH, 1, pixels)
        self.session.submit(job, replace(REQUEST, mask=image), tiles)
        (have,) = self.said()
        assert isinstance(have, Have)
        known = set(image_of(WIDE, HIGH, 1, BEFORE)[1]) if job != "first" else set()
        self.hear(Missing(tuple(name for name in have.tiles if name not in known), query=have.query))
        return self.said()


def painted(tiles: int) -> bytes:
    """The canvas after a stroke through some tiles."""
    after = bytearray(BEFORE)
    for tile in range(tiles):
        after[256 * tile : 256 * tile + 20] = bytes(20)
    return bytes(after)


@pytest.mark.parametrize("wanted", ["raw", "zlib"])
def test_a_stroke_travels_as_a_difference(wanted: str) -> None:
    """The changed tile names what lay there before, and with that it is what it should be."""
    talk = Talk(wanted, ("raw", "zlib", "xor"))
    first = [message for message in talk.submit("first", BEFORE) if isinstance(message, Tile)]
    assert {message.base for message in first} == {None}
    talk.hear(Accepted("first", 0, 1))
    tile, submit = talk.submit("second", painted(1))
    assert isinstance(tile, Tile)
    assert isinstance(submit, Submit)
    (base,) = [data for data in image_of(WIDE, HIGH, 1, BEFORE)[1].values() if name_of(data) == tile.base]
    assert name_of(decode(tile.encoding, tile.data, tile.size, base)) == tile.name
    assert len(tile.data) < tile.size // 100


@pytest.mark.parametrize(
    ("wanted", "changed", "encoding"), [("raw", FEW, "xor"), ("raw", FEW + 1, "raw"), ("zlib", FEW + 1, "xor")]
)
def test_many_differences_are_packed_only_where_packing_pays(wanted: str, changed: int, encoding: str) -> None:
    """On one machine copying a whole canvas is faster than packing it; over a network it is not."""
    talk = Talk(wanted, ("raw", "zlib", "xor"))
    talk.submit("first", BEFORE)
    talk.hear(Accepted("first", 0, 1))
    tiles = [message for message in talk.submit("second", painted(changed)) if isinstance(message, Tile)]
    assert [tile.encoding for tile in tiles] == [encoding] * changed


def test_a_server_that_knows_no_differences_gets_none() -> None:
    """An encoding is used only where the server listed it."""
    talk = Talk("raw", ("raw", "zlib"))
    talk.submit("first", BEFORE)
    talk.hear(Accepted("first", 0, 1))
    tile, _ = talk.submit("second", painted(1))
    assert isinstance(tile, Tile)
    assert tile.encoding == "raw"


def test_what_is_asked_for_again_travels_whole() -> None:
    """A server that has forgotten the base asks under the job's name, and gets the tile itself."""
    talk = Talk("raw", ("raw", "zlib", "xor"))
    talk.submit("first", BEFORE)
    talk.hear(Accepted("first", 0, 1))
    tile, _ = talk.submit("second", painted(1))
    assert isinstance(tile, Tile)
    talk.hear(Missing((tile.name,), job="second"))
    again, _ = talk.said()
    assert isinstance(again, Tile)
    assert (again.name, again.encoding, again.base) == (tile.name, "raw", None)


@pytest.mark.parametrize(("encoding", "base"), [("raw", b"1" * 16), ("zlib", b"1" * 16), ("xor", None)])
def test_a_base_belongs_to_differences_alone(encoding: str, base: Optional[bytes]) -> None:
    """A tile that names a base it does not need, or needs one and names none, is no message."""
    with pytest.raises(InvalidField):
        Tile(b"0" * 16, 3, b"abc", encoding, base)


def test_a_tile_that_changed_altogether_travels_by_itself() -> None:
    """A difference that is no smaller is not worth its base."""
    talk = Talk("zlib", ("raw", "zlib", "xor"))
    talk.submit("first", BEFORE)
    talk.hear(Accepted("first", 0, 1))
    tiles = talk.submit("second", random.Random(8).randbytes(WIDE * HIGH))[:-1]
    assert {tile.encoding for tile in tiles if isinstance(tile, Tile)} == {"raw"}


def test_a_server_that_forgets_tiles_each_time_is_given_up() -> None:
    """A daemon that has no room for all tiles of a job at once is not sent them for ever."""
    talk = Talk("raw", ("raw",))
    talk.submit("first", BEFORE)
    name = image_of(WIDE, HIGH, 1, BEFORE)[0].tiles[0]
    for _ in range(100):
        events = talk.session.receive(vocabulary.encode(Missing((name,), job="first")))
        talk.said()
        if events:
            break
    (refusal,) = events
    assert isinstance(refusal, Error)
    assert refusal.error.code == "storage_full"
    assert talk.session.running == ()
