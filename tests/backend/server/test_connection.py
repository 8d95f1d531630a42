"""A client's conversation with a real daemon over a real websocket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import msgpack
import pytest
from underpaint_backend.client import Refused, connect
from underpaint_backend.launch import Launched
from underpaint_protocol.errors import describe
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    Cancel,
    Error,
    Fetch,
    Have,
    Hello,
    Missing,
    Request,
    Status,
    Submit,
    Tile,
    Welcome,
    vocabulary,
)
from underpaint_protocol.tiles import name_of
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError

from tests.backend.server.calling import ask, opened

PIXELS = bytes(range(256)) * 4
IMAGE, TILES = image_of(16, 16, 4, PIXELS)
MASK, MASK_TILES = image_of(16, 16, 1, PIXELS[:256])
GOOD = Request(model="primer-inpaint", task="inpaint", width=16, height=16, image=IMAGE, mask=MASK)
NEVER_SENT, _ = image_of(16, 16, 4, bytes(1024))


@pytest.fixture
async def socket(daemon: Launched) -> AsyncIterator[ClientConnection]:
    """A websocket on which nothing has been said."""
    async with await opened(daemon) as connection:
        yield connection


@pytest.fixture
async def greeted(socket: ClientConnection) -> ClientConnection:
    """A websocket on which hello and welcome were said."""
    await ask(socket, Hello("test"))
    return socket


async def code(socket: ClientConnection, message: Record | bytes | str) -> str:
    """Send a message that is wrong and return the code of the error, after seeing that the connection still works."""
    answer = await ask(socket, message)
    assert isinstance(answer, Error), answer
    again = await ask(socket, Cancel("nothing"))
    assert isinstance(again, Error)
    assert again.error.code == "unknown_job"
    return answer.error.code


async def submit(socket: ClientConnection, request: Request) -> str:
    """Submit a job that will be refused and return the code of the error."""
    for name, data in {**TILES, **MASK_TILES}.items():
        await socket.send(vocabulary.encode(Tile(name, len(data), data)))
    return await code(socket, Submit("job", request))


async def test_welcome_tells_what_can_be_done(socket: ClientConnection) -> None:
    """Hello is answered with the models, the limits and the state of the worker."""
    welcome = await ask(socket, Hello("test"))
    assert isinstance(welcome, Welcome)
    assert "primer-inpaint" in [model.id for model in welcome.models]
    assert welcome.worker.state in ("starting", "ready")


async def test_welcome_does_not_wait_for_the_worker(own_daemon: Launched) -> None:
    """The first client of a new daemon is greeted while the worker imports, and told when it is ready."""
    async with asyncio.timeout(90), await opened(own_daemon) as socket:
        welcome = await ask(socket, Hello("test"))
        assert isinstance(welcome, Welcome)
        assert welcome.worker.state == "starting"
        status = vocabulary.decode(await socket.recv(decode=False))
        assert isinstance(status, Status)
        assert status.worker.state == "ready"


async def test_nothing_is_answered_before_hello(socket: ClientConnection) -> None:
    """A client that does not greet first is told so, and may greet then."""
    answer = await ask(socket, Cancel("job"))
    assert isinstance(answer, Error)
    assert answer.error.code == "out_of_order"
    assert isinstance(await ask(socket, Hello("test")), Welcome)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Hello("again"), "out_of_order"),
        (Error(describe("internal")), "out_of_order"),
        (b"", "malformed_message"),
        (b"\x93\x01\x02\x03", "malformed_message"),
        ("text", "malformed_message"),
        (msgpack.packb({"type": "dance"}), "unknown_message"),
        (msgpack.packb({"type": "cancel"}), "invalid_field"),
        (Tile(b"0" * 16, 3, b"abc"), "bad_tile"),
        (Tile(name_of(b"abc"), 4, b"abc"), "bad_tile"),
        (Tile(name_of(b"xyz"), 3, b"junk", "zlib"), "bad_tile"),
        (Fetch("nothing", (b"0" * 16,)), "unknown_job"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_bad_message_is_answered_and_the_connection_stays(
    greeted: ClientConnection, message: Record | bytes | str, expected: str
) -> None:
    """Whatever is wrong with a message, the answer is a typed error on a connection that goes on."""
    assert await code(greeted, message) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "nope"}, "unknown_model"),
        ({"scheduler": "abacus"}, "unknown_scheduler"),
        ({"mask": image_of(8, 8, 1, bytes(64))[0]}, "wrong_mask_size"),
        ({"mask": IMAGE}, "wrong_mask_size"),
        ({"image": image_of(8, 8, 4, bytes(256))[0]}, "invalid_field"),
        ({"image": MASK}, "invalid_field"),
        ({"image": None}, "invalid_field"),
        ({"mask": None}, "invalid_field"),
        ({"width": 16384, "height": 16384}, "too_many_pixels"),
        ({"width": 4000, "height": 4000, "batch": 2}, "too_many_pixels"),
        ({"batch": 9}, "invalid_field"),
    ],
)
async def test_a_bad_request_is_refused(greeted: ClientConnection, changes: dict[str, object], expected: str) -> None:
    """A request that cannot be done is refused with its reason and never becomes a job."""
    assert await submit(greeted, replace(GOOD, **changes)) == expected  # type: ignore[arg-type]


async def test_tiles_that_never_came_are_asked_for(greeted: ClientConnection) -> None:
    """A submit whose pixels are not here is no error: they are named, and the job is sent again after them."""
    answer = await ask(greeted, Submit("job", replace(GOOD, image=NEVER_SENT)))
    assert isinstance(answer, Missing)
    assert (answer.job, answer.tiles[:1]) == ("job", NEVER_SENT.tiles)


async def test_a_tile_that_does_not_fit_its_place_is_refused(greeted: ClientConnection) -> None:
    """A picture whose tiles have other sizes than their cells never becomes a job."""
    wrong = replace(IMAGE, tiles=MASK.tiles)
    assert await submit(greeted, replace(GOOD, image=wrong)) == "bad_tile"


async def test_what_the_daemon_has_need_not_be_sent(greeted: ClientConnection) -> None:
    """`have` is answered with the tiles that are missing, each once, under the number of the question."""
    tile = next(iter(TILES))
    await greeted.send(vocabulary.encode(Tile(tile, len(TILES[tile]), TILES[tile])))
    other = b"1" * 16
    assert await ask(greeted, Have(7, (other, tile, other))) == Missing((other,), query=7)


@pytest.mark.parametrize(("field", "value"), [("strength", 7), ("steps", 0), ("steps", 10_000), ("model", "../x")])
async def test_a_field_out_of_range_is_refused_with_its_job(
    greeted: ClientConnection, field: str, value: object
) -> None:
    """The daemon checks what the client's own library would not have let through, and names the job."""
    wire = Submit("job-7", GOOD).to_wire()
    wire["request"][field] = value
    answer = await ask(greeted, msgpack.packb({"type": "submit", **wire}))
    assert isinstance(answer, Error)
    assert (answer.error.code, answer.job) == ("invalid_field", "job-7")
    assert field in answer.error.message.lower()


async def test_a_frame_over_the_limit_closes_with_a_reason(greeted: ClientConnection) -> None:
    """Two mebibytes and more are not a message; the close code says so."""
    await greeted.send(b"\x00" * ((2 << 20) + 1))
    with pytest.raises(ConnectionClosedError) as closed:
        await greeted.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_text_that_is_none_closes_with_a_reason(greeted: ClientConnection) -> None:
    """A text frame is answered, but one that is not UTF-8 is no text frame."""
    greeted.transport.write(b"\x81\x81" + bytes(4) + b"\xff")
    with pytest.raises(ConnectionClosedError) as closed:
        await greeted.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1007


async def test_a_wrong_token_is_told_in_words(daemon: Launched) -> None:
    """The client library turns a refused handshake into the daemon's own sentence."""
    with pytest.raises(Refused) as refusal:
        async with connect(daemon.url, "0" * 64):
            pass
    assert refusal.value.error.code == "unauthorized"


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9", "nonsense", "ws://[abc", "http://127.0.0.1:9", "ws://"])
async def test_an_address_without_a_daemon_is_told_in_words(url: str) -> None:
    """Nobody listening, or an address that is none, is an error with the address in it."""
    with pytest.raises(Refused, match=re.escape(url)):
        async with connect(url, "0" * 64):
            pass
