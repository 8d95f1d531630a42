"""Messages check themselves in both directions."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from underpaint_protocol.exceptions import InvalidField, MalformedMessage, ProtocolError
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    MAX_FRAME,
    MAX_NAMES,
    MAX_SIDE,
    MAX_TILES,
    Adapter,
    Cancel,
    Fetch,
    Have,
    Hello,
    Image,
    Missing,
    Model,
    Models,
    Request,
    Resumed,
    Submit,
    Tile,
    vocabulary,
)
from underpaint_protocol.tiles import TILE
from underpaint_protocol.vocabulary import FROM_CLIENT, FROM_SERVER, Bounds

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


@pytest.mark.parametrize("bounds", [FROM_CLIENT, FROM_SERVER])
def test_the_number_of_values_is_bounded(bounds: Bounds) -> None:
    """A frame full of empty lists is refused before it costs seconds."""
    lists = [[[]] * bounds.items] * (bounds.values // bounds.items)
    with pytest.raises(MalformedMessage, match=f"more than {bounds.values} values"):
        vocabulary.decode(msgpack.packb({"type": "hello", "client": "x", "extra": lists}), bounds)


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("item", [None, [], {}])
def test_what_is_in_maps_and_lists_is_counted_together(over: int, item: Any) -> None:
    """Each value counts once, wherever it lies and whatever it is; the last that is allowed is."""
    around = 4 + 3 + 1 + 4  # of the message, of one list with what is in it, of another, and of those in that
    items = [item] * (FROM_CLIENT.values - around + over - 3 * FROM_CLIENT.items)
    rows = [items, *[[item] * FROM_CLIENT.items] * 3]
    data = msgpack.packb({"type": "hello", "client": "x", "extra": [[], {"a": 1}], "lists": [rows]})
    if over <= 0:
        assert vocabulary.decode(data) == Hello("x")
    else:
        with pytest.raises(MalformedMessage, match=f"more than {FROM_CLIENT.values} values"):
            vocabulary.decode(data)


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("bounds", [FROM_CLIENT, FROM_SERVER])
def test_one_list_and_one_map_are_bounded(bounds: Bounds, over: int) -> None:
    """The last item and the last key that are allowed are."""
    for large in ([None] * (bounds.items + over), {str(key): None for key in range(bounds.keys + over)}):
        data = msgpack.packb({"type": "hello", "client": "x", "extra": large})
        if over:
            with pytest.raises(MalformedMessage):
                vocabulary.decode(data, bounds)
        else:
            assert vocabulary.decode(data, bounds) == Hello("x")


def largest_submit() -> Submit:
    """As many pictures, of as many tiles, as many LoRAs and as long words as a request may have."""

    def picture(number: int, channels: int, tiles: int) -> Image:
        names = tuple(number.to_bytes(8, "big") + index.to_bytes(8, "big") for index in range(tiles))
        width = min(tiles * TILE, MAX_SIDE)
        return Image(width, tiles * TILE * TILE // width, channels, names, x=1 << 30, y=1 << 30, depth=16)

    request = Request(
        "m" * 100,
        "image_to_image",
        MAX_SIDE,
        MAX_SIDE,
        prompt="\U0001f58c" * 100_000,
        negative_prompt="\U0001f58c" * 100_000,
        steps=1000,
        guidance=100.0,
        scheduler="\U0001f58c" * 64,
        seed=2**63 - 1,
        batch=16,
        image=picture(0, 4, MAX_TILES),
        mask=picture(1, 1, MAX_TILES - 128),
        references=tuple(picture(2 + number, 4, 8) for number in range(16)),
        loras=(Adapter("\U0001f58c" * 200, 0.1),) * 16,
    )
    assert sum(len(image.tiles) for image in request.images) == MAX_NAMES
    return Submit("j" * 64, request, supersedes="s" * 64)


@pytest.mark.parametrize(
    "message",
    [
        largest_submit(),
        Have(2**63 - 1, tuple(index.to_bytes(16, "big") for index in range(MAX_TILES))),
        Fetch("j" * 64, tuple(index.to_bytes(16, "big") for index in range(MAX_TILES))),
        Hello("x" * 200, ("e" * 16,) * 8),
    ],
    ids=lambda message: type(message).__name__.lower(),
)
def test_the_largest_that_a_client_may_say_is_far_from_the_bounds(message: Record) -> None:
    """All that its fields allow fits into a frame, and leaves room for fields of later versions."""
    data = vocabulary.encode(message)
    assert len(data) < MAX_FRAME
    fewer = Bounds(FROM_CLIENT.values // 4, FROM_CLIENT.items // 4, FROM_CLIENT.keys // 2)
    assert vocabulary.decode(data, fewer) == message


def test_a_thousand_models_have_more_values_than_a_client_may_send() -> None:
    """What a server says of them is understood by whoever says that it hears a server."""
    model = Model("m", "M", "f", ("inpaint",) * 4, ("ddim",) * 10, 1, 1, 1, 1.0, "ddim")
    models = Models((model,) * 1000)
    assert vocabulary.decode(vocabulary.encode(models), FROM_SERVER) == models
    with pytest.raises(MalformedMessage):
        vocabulary.decode(vocabulary.encode(models))


def nested(items: bytes, count: int = FROM_CLIENT.items - 1) -> bytes:
    """A frame of lists that each hold `count` items and one more list, until it is as large as a frame may be."""
    head = b"\x82\xa4type\xa4have\xa1x"
    level = b"\xdc" + (count + 1).to_bytes(2, "big") + items * count
    return head + level * ((MAX_FRAME - len(head)) // len(level))


WIDE = {
    "maps in lists": msgpack.packb({"type": "have", "x": [[{}] * 250] * 120}),
    "lists in lists": msgpack.packb({"type": "have", "x": [[[]] * 250] * 120}),
    "lists in maps": msgpack.packb({"type": "have", "x": [{str(number): [] for number in range(60)}] * 150}),
    "nothing in lists": msgpack.packb({"type": "have", "x": [[None] * 250] * 130}),
    "deep lists of maps": nested(b"\x80"),
    "deep lists of lists": nested(b"\x90", 4000),
    "deep lists of words": nested(b"\xa1a"),
    "a submit of large pictures": vocabulary.encode(largest_submit()),
}


@pytest.mark.parametrize("data", WIDE.values(), ids=WIDE)
def test_every_frame_is_read_quickly(data: bytes) -> None:
    """In about a millisecond for 32 KiB at most, with some room for a slow machine, whatever is in it."""
    times = []
    for _ in range(5):
        begin = time.thread_time()
        with contextlib.suppress(ProtocolError):
            vocabulary.decode(data)
        times.append(time.thread_time() - begin)
    assert min(times) < 0.003 * max(1.0, len(data) / (32 << 10))


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
