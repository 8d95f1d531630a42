"""One connection each: what is sent on it, and what has to come of it within a second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from random import Random

from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    Accepted,
    Acknowledge,
    Cancel,
    Cancelled,
    Done,
    Error,
    Failed,
    Have,
    Hello,
    Missing,
    Resume,
    Welcome,
    vocabulary,
)
from wire.frames import BINARY, TEXT, frame
from wire.line import Closed, Line, dial, open_line, upgrade

from . import knocks, mutations
from .tally import Line as Row

PATIENCE = 1.0
"""Seconds of silence that count as a hang."""
BATCH = 50
"""Frames that are sent before their answers are read."""
END = b"\r\n\r\n"
LAST = 2**63 - 1
"""The query of the question that follows a batch: when it is answered, all before it was."""


@dataclass(frozen=True)
class Place:
    """The daemon that is visited, and the token that opens it."""

    url: str
    token: str


Visit = Callable[[Place, Random, Row, str], Awaitable[None]]
"""The last is a name, under which a hang is remembered."""


@contextlib.asynccontextmanager
async def visiting(place: Place, row: Row, name: str) -> AsyncIterator[Line]:
    """A websocket to the daemon; that it was closed, or nothing was heard for too long, goes into the row."""
    line = await open_line(place.url, place.token)
    try:
        yield line
    except TimeoutError:
        row.hang(name)
    except Closed as closed:
        row.closes[str(closed.code or "silently")] += 1
    finally:
        await line.close()


# Before the handshake


def knocking(make: Callable[[Random, bytes], bytes]) -> Visit:
    """A visit that sends bytes to the bare socket, and waits for an answer in HTTP or the end.

    If they are no whole request, it says that no more will come: without that, a daemon rightly waits for a while.
    """

    async def visit(place: Place, random: Random, row: Row, name: str) -> None:
        reader, writer = await dial(place.url)
        row.frames += 1
        try:
            data = make(random, upgrade(place.url, place.token))
            writer.write(data)
            if END not in data:
                writer.write_eof()
            row.closes[_status(await asyncio.wait_for(_head(reader), PATIENCE))] += 1
        except TimeoutError:
            row.hang(name)
        except ConnectionError:
            row.closes["reset"] += 1
        finally:
            writer.transport.abort()

    return visit


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(END)
    except asyncio.IncompleteReadError as end:
        return end.partial


def _status(answer: bytes) -> str:
    return f"HTTP {answer[9:12].decode('latin-1')}" if answer.startswith(b"HTTP/1.1 ") else "silently"


async def breaking(place: Place, random: Random, row: Row, name: str) -> None:
    """Some right frames, with or without `hello`, and then one that breaks the websocket's own rules."""
    async with visiting(place, row, name) as line:
        if random.random() < 0.5:
            line.say(Hello("breaker"))
        line.writer.write(knocks.broken_frame(random))
        row.frames += 1
        line.writer.write_eof()
        await _until_closed(line, row)


async def _until_closed(line: Line, row: Row) -> None:
    while True:
        answer = await asyncio.wait_for(line.hear(), PATIENCE)
        if isinstance(answer, Error):
            row.errors[answer.error.code] += 1
        else:
            row.others += 1


# After it


def sending(make: mutations.Mutation, greet: bool, batches: int = 4, batch: int = BATCH) -> Visit:
    """A visit that sends mutated messages, before or after `hello`, and sees each of them answered."""

    async def visit(place: Place, random: Random, row: Row, name: str) -> None:
        async with visiting(place, row, name) as line:
            if greet:
                line.say(Hello("fuzz", ("raw", "zlib")))
            for _ in range(batches):
                frames = [frame(make(random), _opcode(random, greet)) for _ in range(batch)]
                row.frames += len(frames)
                await _settled(line, frames, row)
            await _settled(line, [], row)  # answers overtake the news of jobs, which have all come after another one

    return visit


async def flooding(place: Place, random: Random, row: Row, name: str) -> None:
    """Ten thousand `have` in a row."""
    one = frame(vocabulary.encode(Have(1, tuple(random.randbytes(16) for _ in range(random.choice((1, 20)))))))
    async with visiting(place, row, name) as line:
        line.say(Hello("flood"))
        row.frames += 10_000
        await _settled(line, [one] * 10_000, row)


async def resuming(place: Place, random: Random, row: Row, name: str) -> None:
    """Sessions of nobody, of oneself and of one's other connection, with numbers from the past and the future."""
    async with visiting(place, row, name) as first, visiting(place, row, name) as second:
        names = [await _greeted(line) for line in (first, second)]
        for _ in range(10):
            sessions = random.choices([*names, f"{random.getrandbits(128):032x}"], k=10)
            numbers = random.choices((0, 1, 512, 10**6, 2**63 - 1), k=10)
            messages = [Resume(session, seq) for session, seq in zip(sessions, numbers, strict=True)]
            row.frames += len(messages)
            await _settled(random.choice((first, second)), [frame(vocabulary.encode(one)) for one in messages], row)


async def _greeted(line: Line) -> str:
    line.say(Hello("resumer"))
    welcome = await asyncio.wait_for(line.hear(), PATIENCE)
    assert isinstance(welcome, Welcome)
    return welcome.session


def _opcode(random: Random, greeted: bool) -> int:
    """Text now and then, which ends most connections; not where that would leave jobs behind that nobody fetches."""
    return TEXT if not greeted and random.random() < 0.005 else BINARY


async def _settled(line: Line, frames: list[bytes], row: Row) -> None:
    """Send frames and a last question, and take the answers up to that to it. Raises `TimeoutError` and `Closed`."""
    closing = [frame(vocabulary.encode(message)) for message in (Hello("late"), Have(LAST, ()))]
    line.writer.write(b"".join([*frames, *closing]))
    accepted: dict[str, None] = {}
    while True:
        answer = await asyncio.wait_for(line.hear(), PATIENCE)
        if isinstance(answer, Error):
            row.errors[answer.error.code] += 1
        else:
            row.others += 1
        _follow(line, answer, accepted)
        if isinstance(answer, Missing) and answer.query == LAST:
            break
    await _forgotten(line, accepted)


def _follow(line: Line, answer: Record, accepted: dict[str, None]) -> None:
    """Cancel what became a job after all, and acknowledge what has ended; `accepted` are those that have not."""
    if isinstance(answer, Accepted):
        accepted[answer.job] = None
        line.say(Cancel(answer.job))
    elif isinstance(answer, (Done, Failed, Cancelled)):
        accepted.pop(answer.job, None)
        line.say(Acknowledge(answer.job))
    elif isinstance(answer, Error) and answer.error.code == "unknown_job" and answer.job in accepted:
        # The cancel came too late. Its end is told after this answer, or never, if the batch acknowledged it.
        del accepted[answer.job]
        line.say(Acknowledge(answer.job))


async def _forgotten(line: Line, accepted: dict[str, None]) -> None:
    """See what became a job after all end, so that the daemon can forget it."""
    while accepted:
        answer = await asyncio.wait_for(line.hear(), 10 * PATIENCE)
        _follow(line, answer, accepted)


KINDS: tuple[tuple[str, str, float, Visit], ...] = (
    # phase, kind, its share of the visits, the visit
    ("1 before the handshake", "changed requests", 5, knocking(knocks.request)),
    ("1 before the handshake", "torn requests", 5, knocking(knocks.torn_request)),
    ("1 before the handshake", "other protocols, noise", 3, knocking(knocks.stranger)),
    ("2 websocket frames", "broken rules", 6, breaking),
    ("3 before hello", "structure", 1, sending(mutations.structure, greet=False)),
    ("3 before hello", "bytes", 1, sending(mutations.bytewise, greet=False)),
    ("3 before hello", "noise", 0.5, sending(mutations.noise, greet=False)),
    ("3 before hello", "deep nesting", 0.1, sending(mutations.nesting, greet=False, batch=10)),
    ("4 after hello", "structure", 4, sending(mutations.structure, greet=True)),
    ("4 after hello", "bytes", 3, sending(mutations.bytewise, greet=True)),
    ("4 after hello", "noise", 0.5, sending(mutations.noise, greet=True)),
    ("4 after hello", "a server's messages", 0.5, sending(mutations.turned_round, greet=True)),
    ("4 after hello", "deep nesting", 0.1, sending(mutations.nesting, greet=True, batch=10)),
    ("4 after hello", "wide", 0.03, sending(mutations.wide, greet=True, batches=1, batch=5)),
    ("4 after hello", "tiles", 1, sending(mutations.tile, greet=True)),
    ("4 after hello", "sessions", 0.5, resuming),
    ("4 after hello", "ten thousand have", 0.02, flooding),
)
