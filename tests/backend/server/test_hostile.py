"""What bad input gets: a typed error, or a close code that says why. The daemon lives, and others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import subprocess
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from underpaint_backend.launch import Launched, launch, launched
from underpaint_backend.server.access.guests import Guest, changing
from underpaint_backend.server.access.tokens import digest_of, guests_beside, make_token
from underpaint_protocol.exceptions import InvalidField, MalformedMessage
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    MAX_FRAME,
    MAX_TILES,
    Accepted,
    Cancelled,
    Done,
    Error,
    Fetch,
    Have,
    Missing,
    Resume,
    Resumed,
    Submit,
    Tile,
    vocabulary,
)
from underpaint_protocol.tiles import name_of
from underpaint_protocol.vocabulary import FROM_SERVER
from websockets.asyncio.client import ClientConnection

from tests.backend.server.calling import INPAINT, LONG, SHORT, Caller, ask, greeted

ROW = b"\xdc\x10\x00" + b"\x90" * 4096
CROWDED = b"\x82\xa4type\xa4have\xa1x\xdc\x01\xff" + ROW * 511
"""A map of two megabytes, as large as a frame may be, with two million empty lists in it."""
PIXELS = bytes(range(256)) * 4


@pytest.fixture
async def socket(daemon: Launched) -> AsyncIterator[ClientConnection]:
    """A websocket on which hello and welcome were said; afterwards, another one says that the daemon is well."""
    bystander, _ = await greeted(daemon)
    connection, _ = await greeted(daemon)
    async with connection, bystander:
        yield connection
        assert await notices_nothing(bystander)
    assert "Traceback" not in daemon.log.read_text("utf-8")


async def notices_nothing(bystander: ClientConnection) -> bool:
    """Whether a question of somebody else is answered within a second."""
    async with asyncio.timeout(1):
        await bystander.send(vocabulary.encode(Have(7, (bytes(16),))))
        while not isinstance(answer := vocabulary.decode(await bystander.recv(decode=False)), Missing):
            pass
    return answer == Missing((bytes(16),), 7)


async def refusal(socket: ClientConnection, message: Record | bytes) -> str:
    """The code of the error that answers a message, on a connection that still works."""
    answer = await ask(socket, message)
    assert isinstance(answer, Error), answer
    assert isinstance(await ask(socket, Have(1, ())), Missing)
    return answer.error.code


async def close_code(socket: ClientConnection, data: bytes) -> int | None:
    """With which code the daemon closes after these bytes, which are no frames of the library's making."""
    socket.transport.write(data)
    async with asyncio.timeout(5):
        await socket.wait_closed()
    return socket.close_code


# Frames


async def test_half_a_frame(socket: ClientConnection) -> None:
    """A frame that ends in the middle ends its connection, and nothing of it is done."""
    socket.transport.write(b"\x82\xfe\x10\x00" + bytes(4) + b"half")
    assert isinstance(socket.transport, asyncio.Transport)
    socket.transport.write_eof()
    async with asyncio.timeout(5):
        await socket.wait_closed()


@pytest.mark.parametrize("length", [(2 << 20) + 1, 1 << 31, 1 << 62])
async def test_a_frame_of_two_gigabytes(socket: ClientConnection, length: int) -> None:
    """The header alone is enough to refuse it: 1009, a message too big."""
    assert await close_code(socket, b"\x82\xff" + struct.pack("!Q", length) + bytes(4)) == 1009


@pytest.mark.parametrize("data", [b"\x83\x80" + bytes(4), b"\x82\x05hello", b"\xf2\x80" + bytes(4)])
async def test_frames_that_break_the_rules(socket: ClientConnection, data: bytes) -> None:
    """An unknown opcode, a frame without a mask, reserved bits: 1002, a protocol error."""
    assert await close_code(socket, data) == 1002


async def test_two_farewells_in_one_piece(socket: ClientConnection) -> None:
    """Whoever says goodbye twice is let go, and the log has no word of an error of ours."""
    assert await close_code(socket, 2 * (b"\x88\x80" + bytes(4))) is not None


async def test_a_broken_frame_right_behind_a_request_that_is_refused(daemon: Launched) -> None:
    """Both are refused, and the log has no word of an error of ours."""
    place = urlsplit(daemon.url)
    wish = f"GET / HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write((wish + key).encode() + b"\xff\xff")
    async with asyncio.timeout(5):
        await reader.read()
        while "broke the rules" not in daemon.log.read_text("utf-8"):
            await asyncio.sleep(0.01)
    writer.close()
    assert "Traceback" not in daemon.log.read_text("utf-8")


@pytest.mark.parametrize("inside", [b"\x91", b"\x81\xa1a"])
@pytest.mark.parametrize("depth", [9, 1000, 100_000])
async def test_deep_nesting(socket: ClientConnection, inside: bytes, depth: int) -> None:
    """A hundred thousand lists or maps inside one another are no message, however deep."""
    assert await refusal(socket, b"\x82\xa4type\xa4have\xa1x" + inside * depth + b"\xc0") == "malformed_message"


async def test_two_million_lists_side_by_side(socket: ClientConnection) -> None:
    """A frame that is full of empty lists is refused while others are answered."""
    assert await refusal(socket, CROWDED) == "malformed_message"


def test_a_frame_full_of_empty_lists_is_given_up_early() -> None:
    """Two million lists in one frame cost a fraction of the two seconds that unpacking them all takes."""
    assert len(CROWDED) < MAX_FRAME
    times = [time.process_time()]
    with pytest.raises(MalformedMessage, match="more than 32768 values"):
        vocabulary.decode(CROWDED, FROM_SERVER)
    times.append(time.process_time())
    with pytest.raises(InvalidField):
        vocabulary.decode(CROWDED, FROM_SERVER._replace(values=1 << 30))
    times.append(time.process_time())
    early, whole = (end - begin for begin, end in pairwise(times))
    assert early < whole / 3


# Tiles


async def test_a_wrong_hash(socket: ClientConnection) -> None:
    """A tile under another name than its content's is damaged, and is not kept."""
    assert await refusal(socket, Tile(b"\x01" * 16, len(PIXELS), PIXELS)) == "bad_tile"
    assert await ask(socket, Have(2, (b"\x01" * 16,))) == Missing((b"\x01" * 16,), 2)


async def test_a_tile_that_unpacks_to_far_more_than_it_says(socket: ClientConnection) -> None:
    """A zlib stream of 256 MiB of zeros in a tile of 256 KiB is unpacked no further than that."""
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    stream = b"".join([*(packer.compress(zeros) for _ in range(256)), packer.flush()])
    assert await refusal(socket, Tile(name_of(zeros[: 1 << 18]), 1 << 18, stream, "zlib")) == "bad_tile"
    assert await refusal(socket, Tile(bytes(16), 1 << 18, b"no stream at all", "zlib")) == "bad_tile"


async def test_a_tile_that_is_never_sent(socket: ClientConnection) -> None:
    """A job whose tiles do not come is asked for them as often as it is submitted, and never becomes a job."""
    image, _ = image_of(16, 16, 4, b"\x07" * 1024)
    mask, _ = image_of(16, 16, 1, b"\x07" * 256)
    request = replace(INPAINT, width=16, height=16, image=image, mask=mask)
    for _ in range(3):
        assert await ask(socket, Submit("never", request)) == Missing((*image.tiles, *mask.tiles), job="never")
    assert await refusal(socket, Fetch("never", ())) == "unknown_job"


async def test_a_mask_without_an_image(socket: ClientConnection) -> None:
    """A selection of nothing is refused with what is missing."""
    answer = await ask(socket, Submit("lone-mask", replace(INPAINT, image=None)))
    assert isinstance(answer, Error)
    assert (answer.error.code, answer.job) == ("invalid_field", "lone-mask")
    assert "picture" in answer.error.message


# Sessions, and too much of everything


async def test_resuming_a_session_of_somebody_else(daemon: Launched, socket: ClientConnection) -> None:
    """It is answered like a session that never was, and its own client keeps it."""
    async with Caller(daemon) as owner:
        owner.submit("mine", SHORT)
        assert isinstance(await owner.end_of("mine"), Done)
        stranger, _ = await greeted(daemon, guest(daemon))
        async with stranger:
            answers = [await ask(stranger, Resume(name, 0)) for name in (owner.core.session or "", "0" * 32)]
        assert answers[0] == answers[1]
        assert isinstance(answers[0], Error)
        assert answers[0].error.code == "unknown_session"
        assert isinstance(await ask(owner.socket, Have(3, ())), Missing)


def guest(daemon: Launched) -> str:
    """The token of somebody else."""
    token = make_token()
    with changing(guests_beside(daemon.home / "token")) as guests:
        guests[f"guest-{token[:8]}"] = Guest(digest_of(token))
    return token


async def test_ten_thousand_questions_in_a_row(daemon: Launched, socket: ClientConnection) -> None:
    """All are answered in order, and a bystander's own question is answered in between."""
    bystander, _ = await greeted(daemon)
    questions = asyncio.create_task(flood(socket, 10_000))
    async with bystander:
        assert await notices_nothing(bystander)
        for query in range(10_000):
            answer = vocabulary.decode(await socket.recv(decode=False))
            assert isinstance(answer, Missing)
            assert answer.query == query
    await questions


async def flood(socket: ClientConnection, count: int, tiles: int = 1) -> None:
    """Ask without listening."""
    names = tuple(number.to_bytes(16, "big") for number in range(tiles))
    for query in range(count):
        await socket.send(vocabulary.encode(Have(query, names)))


async def test_who_asks_much_and_reads_nothing_leaves_nothing_behind(own_daemon: Launched) -> None:
    """A client that floods, does not read and goes away costs neither memory nor one of its token's connections."""
    before = resident(own_daemon)
    for _ in range(34):  # of which 32 may be open at once
        await flood_and_go(own_daemon)
    async with asyncio.timeout(5):
        socket, _ = await greeted(own_daemon)
        async with socket:
            assert await notices_nothing(socket)
    assert resident(own_daemon) < before + 60
    began = time.monotonic()
    assert await asyncio.to_thread(own_daemon.stop) == 0
    assert time.monotonic() - began < 10


async def flood_and_go(daemon: Launched) -> None:
    """Ask for hundreds of MiB of answers, and cut the line once they cannot be sent."""
    socket, _ = await greeted(daemon)
    socket.transport.pause_reading()  # type: ignore[attr-defined]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await flood(socket, 2000, MAX_TILES)
    socket.transport.abort()


def resident(daemon: Launched) -> float:
    """Resident memory of the daemon in MiB."""
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# The journal


async def test_a_corrupt_journal(tmp_path: Path) -> None:
    """It is set aside with a sentence in the log, byte for byte, and the daemon begins an empty one."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "journal.sqlite").write_bytes(b"not a journal" * 1000)
    with launched(home, "--threads", "1") as daemon:
        async with Caller(daemon) as client:
            client.submit("new", LONG)
            assert isinstance(await client.until(lambda event: isinstance(event, Accepted)), Accepted)
        (kept,) = home.glob("journal.damaged-*.sqlite")
        assert kept.read_bytes() == b"not a journal" * 1000
        assert f"is damaged: file is not a database. It is kept as {kept.name}" in daemon.log.read_text()


async def test_a_read_only_journal(tmp_path: Path) -> None:
    """A job is refused with the reason, the file stays as it is, and all else works."""
    home = tmp_path / "home"
    with launched(home, "--threads", "1"):
        pass
    with read_only(home / "journal.sqlite"), launched(home, "--threads", "1") as daemon:
        bystander, _ = await greeted(daemon)
        async with bystander, Caller(daemon) as client:
            client.submit("refused", SHORT)
            end = await client.end_of("refused")
            assert isinstance(end, Error)
            assert (end.error.code, end.error.retryable) == ("journal_unavailable", True)
            assert await notices_nothing(bystander)
        assert not list(home.glob("*damaged*"))


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A file that the daemon cannot write; modes do not bind root, so it takes an attribute then."""
    lock, unlock = (["chattr", "+i"], ["chattr", "-i"]) if os.geteuid() == 0 else (["chmod", "400"], ["chmod", "600"])
    if subprocess.run([*lock, str(path)], capture_output=True).returncode != 0:
        pytest.skip("this file system knows no files that root cannot write")
    try:
        yield
    finally:
        subprocess.run([*unlock, str(path)], check=True)


def concerns(job: str, event: object) -> bool:
    return getattr(event, "job", None) == job


async def test_a_full_journal(tmp_path: Path) -> None:
    """Jobs are refused once it is full, others notice nothing, and when some are gone there is room again."""
    verbose = replace(LONG, prompt="\U0001f58c" * 10_000, negative_prompt="\U0001f58c" * 10_000)
    daemon = launch(tmp_path / "home", "--threads", "1", "--journal-mib", "1")
    try:
        bystander, _ = await greeted(daemon)
        async with bystander, Caller(daemon) as client:
            ends, number = [], 0
            while not ends:
                client.submit(f"job-{number}", verbose)
                told = await client.until(partial(concerns, f"job-{number}"))
                ends = [told] if isinstance(told, Error) else []
                number += 1
            assert isinstance(ends[0], Error)
            assert (ends[0].error.code, ends[0].error.retryable) == ("journal_full", True)
            assert await notices_nothing(bystander)
            for job in client.core.running:
                client.core.cancel(job)
                assert isinstance(await client.end_of(job), Cancelled)
                client.core.acknowledge(job)
            client.submit("again", verbose)
            assert isinstance(await client.until(lambda event: getattr(event, "job", None) == "again"), Accepted)
        assert "Traceback" not in daemon.log.read_text("utf-8")
    finally:
        daemon.stop()


async def test_a_resumed_session_is_told_once(daemon: Launched, socket: ClientConnection) -> None:
    """Resuming one's own session again and again, with numbers of the future, does no harm."""
    async with Caller(daemon) as client:
        client.submit("one", SHORT)
        await client.end_of("one")
        session = client.core.session or ""
    for last_seq in (0, 2**63 - 1, 5):
        connection, _ = await greeted(daemon)
        async with connection:
            assert isinstance(await ask(connection, Resume(session, last_seq)), Resumed)
