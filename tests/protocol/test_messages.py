"""Messages check themselves in both directions."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from underpaint_protocol.exceptions import InvalidField, MalformedMessage, ProtocolError
from underpaint_protocol.messages import (
    MAX_FRAME,
    MAX_TILES,
    Cancel,
    Have,
    Hello,
    Image,
    Missing,
    Model,
    Request,
    Resumed,
    Submit,
    Tile,
    vocabulary,
)
from underpaint_protocol.vocabulary import MAX_VALUES

GOOD = {"model": "primer-inpaint", "task": "inpaint", "width": 64, "height": 64}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strength", 7),
        ("strength", 0),
        ("strength", math.nan),
        ("strength", True),
        ("strength", "1"),
        ("steps", 0),
        ("steps", 10_000),
        ("steps", 2.5),
        ("guidance", -1.0),
        ("guidance", math.inf),
        ("width", 0),
        ("height", 1 << 40),
        ("seed", -1),
        ("seed", 2**63),
        ("batch", 0),
        ("model", "../etc/passwd"),
        ("model", "a/../b"),
        ("model", "/root"),
        ("model", ""),
        ("task", "dance"),
        ("task", ["inpaint"]),
        ("prompt", "x" * 100_001),
        ("prompt", b"bytes"),
        ("prompt", "\ud800"),
        ("image", 7),
        ("mask", {"width": 1}),
    ],
)
def test_a_request_refuses_a_bad_value(field: str, value: Any) -> None:
    """Each field of a request refuses what it may not hold, and names itself."""
    with pytest.raises(InvalidField) as refusal:
        Request(**{**GOOD, field: value})
    assert refusal.value.field.startswith(field)


def test_a_refusal_names_the_job_and_the_path_of_the_field() -> None:
    """The error of a bad message carries the job it spoke of and the dotted name of the field."""
    wire = {
        "type": "submit",
        "job": "j1",
        "request": {**GOOD, "mask": {"width": 1, "height": 1, "channels": 2, "tiles": b"a" * 16}},
    }
    with pytest.raises(InvalidField) as refusal:
        vocabulary.decode(msgpack.packb(wire))
    assert (refusal.value.job, refusal.value.field) == ("j1", "request.mask.channels")


def test_unknown_keys_are_ignored() -> None:
    """A later version may add fields that this one does not know."""
    assert vocabulary.decode(msgpack.packb({"type": "hello", "client": "x", "later": [1, {}]})) == Hello("x")


def test_requests_compare_by_value() -> None:
    """Two requests made apart are equal and hash alike, so that a change is seen by comparing."""
    assert Request(**GOOD, steps=4) == Request(**GOOD, steps=4)
    assert hash(Request(**GOOD)) == hash(Request(**GOOD))
    assert Request(**GOOD, seed=1) != Request(**GOOD)


def test_deep_nesting_is_refused() -> None:
    """A message that nests a thousand maps is refused and costs no recursion."""
    deep = b"\x81\xa1a" * 2000 + b"\xc0"
    with pytest.raises(MalformedMessage):
        vocabulary.decode(b"\x82\xa4type\xa5hello\xa6client" + deep)


def test_nesting_that_msgpack_allows_is_bounded_too() -> None:
    """Nine lists inside one another are one too many."""
    value: Any = 0
    for _ in range(9):
        value = [value]
    with pytest.raises(MalformedMessage):
        vocabulary.decode(msgpack.packb({"type": "hello", "client": "x", "extra": value}))


def test_the_number_of_values_is_bounded() -> None:
    """A frame full of empty lists is refused before it costs seconds."""
    lists = [[[]] * 4096] * (MAX_VALUES // 4096)
    with pytest.raises(MalformedMessage):
        vocabulary.decode(msgpack.packb({"type": "hello", "client": "x", "extra": lists}))


def test_a_frame_over_the_limit_is_refused_unread() -> None:
    """More bytes than a frame may have are not unpacked."""
    with pytest.raises(MalformedMessage):
        vocabulary.decode(b"\xc4" * (MAX_FRAME + 1))


def test_names_of_tiles_are_one_string_of_bytes() -> None:
    """On the wire they stand one after another, and each has 16 bytes."""
    names = (b"a" * 16, b"b" * 16)
    assert Have(1, names).to_wire()["tiles"] == b"a" * 16 + b"b" * 16
    assert vocabulary.decode(vocabulary.encode(Missing(names, query=1))) == Missing(names, query=1)


@pytest.mark.parametrize("tiles", [b"a" * 15, (b"a" * 17,), "a" * 16, [b"a" * 16], None])
def test_what_does_not_divide_into_names_is_refused(tiles: Any) -> None:
    """Half a name, text and lists are no names of tiles."""
    with pytest.raises(InvalidField):
        Have(1, tiles)


def test_a_message_names_a_bounded_number_of_tiles() -> None:
    """One name too many is refused."""
    assert len(Have(1, (bytes(16),) * MAX_TILES).tiles) == MAX_TILES
    with pytest.raises(InvalidField):
        Have(1, (bytes(16),) * (MAX_TILES + 1))


@pytest.mark.parametrize("name", [b"a" * 15, "a" * 16, None])
def test_a_tile_has_a_name_of_16_bytes(name: Any) -> None:
    """Other names are refused."""
    with pytest.raises(InvalidField):
        Tile(name, 1, b"a")


@pytest.mark.parametrize("data", ["text", bytes(513 << 10), None])
def test_a_tile_carries_bounded_bytes(data: Any) -> None:
    """What is no bytes, or more than a tile can have, is refused."""
    with pytest.raises(InvalidField):
        Tile(bytes(16), 1, data)


def test_views_of_bytes_become_bytes() -> None:
    """A tile may be made of any buffer."""
    assert Tile(bytes(16), 1, memoryview(b"a")) == Tile(bytes(16), 1, bytearray(b"a"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("x", "count"), [(0, 1), (254, 1), (255, 2)])
def test_an_image_names_a_tile_for_each_cell(x: int, count: int) -> None:
    """How many depends on where on the canvas it lies; any other number is refused."""
    assert Image(2, 2, 1, (bytes(16),) * count, x=x)
    with pytest.raises(InvalidField):
        Image(2, 2, 1, (bytes(16),) * (count + 1), x=x)


def test_lists_are_bounded() -> None:
    """A list has at most as many items as its field says, and each of them is checked."""
    with pytest.raises(InvalidField):
        Hello("x", ("raw",) * 9)
    with pytest.raises(InvalidField):
        Hello("x", "raw")  # type: ignore[arg-type]
    with pytest.raises(InvalidField) as refusal:
        Resumed("0" * 32, ("a", "b c"))
    assert refusal.value.field == "jobs[1]"


def test_a_flag_is_true_or_false() -> None:
    """A number is no flag."""
    with pytest.raises(InvalidField):
        Submit("a", Request(**GOOD), previews=1)  # type: ignore[arg-type]


def test_a_models_tasks_are_known_ones() -> None:
    """A list of choices refuses another one."""
    with pytest.raises(InvalidField):
        Model("m", "M", "f", ("dance",), (), 1, 1, 1, 1.0, "ddim")


def test_records_are_made_of_maps_too() -> None:
    """A nested record may be given as the map that it is on the wire."""
    image = {"width": 2, "height": 2, "channels": 4, "tiles": b"a" * 16}
    assert Request(**GOOD, image=image).image == Image(2, 2, 4, (b"a" * 16,))  # type: ignore[arg-type]


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from([name for name, _ in vocabulary] + ["dance"])
keys = st.sampled_from(
    ["job", "request", "client", "tiles", "size", "query", "data", "error", "image", "worker", "session", "seq"]
)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    """Random bytes never raise anything but a protocol error."""
    with contextlib.suppress(ProtocolError):
        vocabulary.decode(data)


@given(names, st.dictionaries(keys, json_like))
def test_any_map_is_a_message_or_a_protocol_error(name: str, fields: dict[str, Any]) -> None:
    """Random fields of real messages never raise anything but a protocol error."""
    with contextlib.suppress(ProtocolError):
        vocabulary.decode(msgpack.packb({"type": name, **fields}))


@given(
    prompt=st.text(max_size=100),
    strength=st.floats(0.01, 1.0),
    steps=st.none() | st.integers(1, 1000),
    seed=st.integers(0, 2**63 - 1),
    job=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
)
def test_what_is_encoded_decodes_to_the_same(
    prompt: str, strength: float, steps: int | None, seed: int, job: str
) -> None:
    """A request survives the wire unchanged."""
    request = Request(**GOOD, prompt=prompt, strength=strength, steps=steps, seed=seed)
    assert vocabulary.decode(vocabulary.encode(Submit(job, request))) == Submit(job, request)


def test_two_messages_may_not_share_a_name() -> None:
    """Declaring a second message under a taken name is refused at once."""
    with pytest.raises(ValueError, match="two messages"):
        vocabulary.message("cancel")(Cancel)
