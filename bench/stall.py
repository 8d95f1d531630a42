"""What client B notices of client A, which asks for far more than it reads.

A fetches 256 MiB of tiles and asks two thousand questions, and reads none of it. B meanwhile asks what the daemon has
and lets it paint; its latencies are those from a question to the answer, and from the worker's prediction to the
preview. Rounds with A and without A take turns. At the end A stays until it is cut off, and comes back for what it
missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from report import Figure, show
from underpaint_backend.launch import Launched, launched
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    MAX_TILES,
    STATE,
    Accepted,
    Acknowledge,
    Cancel,
    Cancelled,
    Done,
    Fetch,
    Have,
    Hello,
    Missing,
    Preview,
    Request,
    Result,
    Resume,
    Resumed,
    Submit,
    Tile,
    Welcome,
    vocabulary,
)
from underpaint_protocol.tiles import name_of
from wire.frames import PING, frame
from wire.line import Line, open_line

M = TypeVar("M", bound=Record)

SIDE = 128
SHORT = Request("primer-inpaint", "text_to_image", SIDE, SIDE, prompt="a red heart", steps=8)
LONG = Request("primer-inpaint", "text_to_image", SIDE, SIDE, prompt="a blue moon", steps=1000)
QUESTIONS = 2000
INTERVAL = 0.01
"""Seconds between two questions of B."""
STALL_SECONDS = 6
"""What the daemon is told; by default it waits for 30 s."""


@dataclass
class Latencies:
    """Of one round of B, in milliseconds."""

    answers: list[float] = field(default_factory=list)
    previews: list[float] = field(default_factory=list)

    @property
    def medians(self) -> tuple[float, float]:
        """Of the answers, and of the previews."""
        return statistics.median(self.answers), statistics.median(self.previews)


def main() -> None:
    """Run rounds in turns and print B's latencies beside A over those alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of each kind")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one round")
    parser.add_argument("--stall-seconds", type=int, default=STALL_SECONDS, help="what the daemon is told")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    words = ("--threads", "1", "--stall-seconds", str(arguments.stall_seconds))
    with tempfile.TemporaryDirectory() as folder, launched(Path(folder), *words) as daemon:
        figure = asyncio.run(measure(daemon, arguments.rounds, arguments.seconds, arguments.stall_seconds))
    show(figure, arguments.json)


async def measure(daemon: Launched, rounds: int, seconds: float, stall_seconds: int) -> Figure:
    """Both kinds of rounds in turns, and then the end of A."""
    session, tile = await first_visit(daemon)
    alone: list[Latencies] = []
    beside: list[Latencies] = []
    flood()
    await listened(daemon, seconds / 2)  # warms up
    for number in range(2 * rounds):
        if (number + number // 2) % 2 == 0:
            alone.append(await listened(daemon, seconds))
        else:
            async with stalling(daemon, session, tile):
                beside.append(await listened(daemon, seconds))
    rows = [
        *compared("question to answer, ms", alone, beside, 0),
        *compared("prediction to preview, ms", alone, beside, 1),
    ]
    ratio = max(_ratio(alone, beside, which) for which in (0, 1))
    rows += await cut_off_and_back(daemon, session, tile, stall_seconds)
    return Figure("stall", ratio, "x", "<= 1.2", rows)


def compared(what: str, alone: Sequence[Latencies], beside: Sequence[Latencies], which: int) -> list[dict[str, object]]:
    """Rows of the medians of rounds, and of the worst single latencies."""
    one, other = ([latencies.medians[which] for latencies in side] for side in (alone, beside))
    worst = [max(max((each.answers, each.previews)[which]) for each in side) for side in (alone, beside)]
    return [
        {
            "what": what,
            "B alone": statistics.median(one),
            "beside A": statistics.median(other),
            "ratio": _ratio(alone, beside, which),
        },
        {"what": "  the worst of all", "B alone": worst[0], "beside A": worst[1], "ratio": ""},
    ]


def _ratio(alone: Sequence[Latencies], beside: Sequence[Latencies], which: int) -> float:
    """Of two rounds that follow one another; the median of those, so that a machine that slows down harms no side."""
    pairs = zip(alone, beside, strict=True)
    return statistics.median(other.medians[which] / one.medians[which] for one, other in pairs)


# A


async def first_visit(daemon: Launched) -> tuple[str, bytes]:
    """A has a picture painted and leaves: its session, and the one tile of its result."""
    line = await open_line(daemon.url, daemon.token)
    line.say(Hello("A"))
    session = (await until(line, Welcome)).session
    line.say(Submit("first", SHORT))
    result = await until(line, Result)
    await until(line, Done)
    await line.close()
    return session, result.image.tiles[0]


@functools.cache
def flood() -> bytes:
    """A's questions, made once: while they are made, B would wait for its own program."""
    names = tuple(number.to_bytes(16, "big") for number in range(500))
    return b"".join(frame(vocabulary.encode(Have(number, names))) for number in range(QUESTIONS))


@contextlib.asynccontextmanager
async def stalling(daemon: Launched, session: str, tile: bytes) -> AsyncIterator[Line]:
    """A asks for much and reads nothing."""
    line = await open_line(daemon.url, daemon.token)
    line.say(Hello("A"), Resume(session, 0), Fetch("first", (tile,) * MAX_TILES))
    line.writer.write(flood())
    try:
        yield line
    finally:
        await line.close()


async def cut_off_and_back(daemon: Launched, session: str, tile: bytes, documented: int) -> list[dict[str, object]]:
    """A submits another job, stops reading until it is cut off, and comes back for it."""
    line = await open_line(daemon.url, daemon.token)
    line.say(Hello("A"), Resume(session, 0), Submit("second", SHORT))
    while not isinstance(seen := await line.hear(), Accepted) or seen.job != "second":
        pass
    began = time.monotonic()
    line.say(Fetch("first", (tile,) * MAX_TILES))
    while not line.writer.transport.is_closing() and time.monotonic() < began + 5 * documented:
        line.writer.write(frame(b"", PING))
        await asyncio.sleep(0.05)
    cut_off = time.monotonic() - began
    await line.close()
    missed, whole = await come_back(daemon, session, seen.seq)
    return [
        {"what": "asked for by A and not read, MiB", "B alone": "", "beside A": MAX_TILES * SIDE * SIDE * 4 / 2**20},
        {"what": f"A is cut off after s (--stall-seconds {documented})", "B alone": "", "beside A": cut_off},
        {"what": "events that A missed, and got when it came back", "B alone": "", "beside A": missed},
        {"what": "and the picture, whole", "B alone": "", "beside A": "yes" if whole else "NO"},
    ]


async def come_back(daemon: Launched, session: str, last_seq: int) -> tuple[int, bool]:
    """How many events of A's second job come, and whether its picture does.

    Raises `RuntimeError` if the events do not follow one another.
    """
    line = await open_line(daemon.url, daemon.token)
    line.say(Hello("A"), Resume(session, last_seq))
    await until(line, Resumed)
    events = [await state(line)]
    while not isinstance(events[-1], Done):
        events.append(await state(line))
    numbers = [event.seq for event in events]  # type: ignore[attr-defined]
    if numbers != sorted(set(numbers)) or numbers[0] <= last_seq:
        raise RuntimeError(f"the events have the numbers {numbers} after {last_seq}")
    (result,) = [event for event in events if isinstance(event, Result)]
    line.say(Fetch("second", result.image.tiles))
    tile = await until(line, Tile)
    line.say(Acknowledge("first"), Acknowledge("second"))
    await line.close()
    return len(events), name_of(tile.data) == result.image.tiles[0]


# B


async def listened(daemon: Launched, seconds: float) -> Latencies:
    """B's latencies in one round."""
    line = await open_line(daemon.url, daemon.token)
    line.say(Hello("B"), Submit("B", LONG))
    await until(line, Preview)
    latencies, asked = Latencies(), {}
    end = time.monotonic() + seconds

    async def ask() -> None:
        for query in range(1 << 30):
            asked[query] = time.perf_counter()
            line.say(Have(query, (bytes(16),)))
            await asyncio.sleep(INTERVAL)

    asking = asyncio.create_task(ask())
    while time.monotonic() < end:
        message = await line.hear()
        if isinstance(message, Missing) and message.query is not None:
            latencies.answers.append(1000 * (time.perf_counter() - asked[message.query]))
        elif isinstance(message, Preview):
            latencies.previews.append(1000 * (time.time() - message.predicted_at))
        elif isinstance(message, Done):
            line.say(Acknowledge("B"), Submit("B", LONG))
    asking.cancel()
    await stopped(line)
    return latencies


async def stopped(line: Line) -> None:
    """End B's job and its connection."""
    line.say(Cancel("B"))
    while not isinstance(await line.hear(), (Cancelled, Done)):
        pass
    line.say(Acknowledge("B"))
    await line.close()


async def until(line: Line, kind: type[M]) -> M:
    """The next message of one type; what comes before it is passed over."""
    while not isinstance(message := await line.hear(), kind):
        pass
    return message


async def state(line: Line) -> Record:
    """The next numbered message."""
    while not isinstance(message := await line.hear(), STATE):
        pass
    return message


if __name__ == "__main__":
    main()
