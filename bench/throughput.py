"""Raw pixels from many clients at once into the daemon, beside the same bytes to a bare `websockets` echo server.

64 clients have 8 megapixels each, 32 MiB, none like another. They are sent as tiles until the daemon says that it has
them all: hashed, compared and written to its store. The echo server does nothing but send every frame back. Clients
are a process of their own and the same code for both; both sides get the same frames, in turns.

The store is full of older pixels that make room, as it is once a daemon has been used for a while. The round in which
it fills, `first`, does not count: it says how fast the system finds memory for files that grow, which differs tenfold
between virtual machines.

`pixels up` counts the pixels once. `on the wire` counts every byte both ways, which is twice as much for the echo,
as it sends everything back, and no more for the daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from report import Figure, show
from underpaint_backend.launch import launched
from underpaint_backend.server.access.guests import Guest, changing
from underpaint_backend.server.access.owners import Allowance
from underpaint_backend.server.access.tokens import digest_of, guests_beside, make_token
from underpaint_protocol.messages import SUBPROTOCOL
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol
from wire.process import wait_for_worker
from wire.uploaders import SIZE, Load, Outcome, run

CLIENTS = 64
TILES = 128
"""Of one client: 8 MiB of pixels with 4 bytes each."""

Side = Callable[[int, int, str], "Speed"]
"""From clients, tiles of each and a seed to a speed."""

SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Speed:
    """MiB/s of one run."""

    pixels: float
    wire: float


def main() -> None:
    """Run both sides in turns and print the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--tiles", type=int, default=TILES, help="of each client, 256 KiB each")
    parser.add_argument("--folder", type=Path, help="for the daemon's tiles (default: the one for temporary files)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figure = measure(arguments.rounds, arguments.clients, arguments.tiles, Path(folder))
    show(figure, arguments.json)


def measure(rounds: int, clients: int, tiles: int, folder: Path) -> Figure:
    """Both sides in turns; which one is first changes from round to round.

    What a daemon wrote is on the disk before the next side begins: nobody pays for another's writes.
    """
    every: list[tuple[Speed, Speed]] = []
    for number in range(1 + rounds):
        sides: dict[str, Side] = {"daemon": partial(daemon_speed, folder), "echo": echo_speed}
        speeds = {name: sides[name](clients, tiles, str(number)) for name in sorted(sides, reverse=bool(number % 2))}
        every.append((speeds["echo"], speeds["daemon"]))
    rows: list[dict[str, object]] = [row(str(number or "first"), *speeds) for number, speeds in enumerate(every)]
    echo, daemon = (median([speeds[side] for speeds in every[1:]]) for side in (0, 1))
    rows.append(row("median", echo, daemon))
    return Figure("throughput", daemon.pixels / echo.pixels, "x", ">= 0.7", rows)


def row(name: str, echo: Speed, daemon: Speed) -> dict[str, object]:
    """One round."""
    return {
        "round": name,
        "pixels up, MiB/s: echo": echo.pixels,
        "daemon": daemon.pixels,
        "ratio": daemon.pixels / echo.pixels,
        "on the wire, MiB/s: echo": echo.wire,
        "the daemon": daemon.wire,
        "its ratio": daemon.wire / echo.wire,
    }


def median(speeds: list[Speed]) -> Speed:
    """Of each kind."""
    return Speed(statistics.median(one.pixels for one in speeds), statistics.median(one.wire for one in speeds))


def daemon_speed(folder: Path, clients: int, tiles: int, seed: str) -> Speed:
    """A new daemon each time, with the store of the one before it, which has just room for what it gets."""
    room = clients * tiles * SIZE / 2**30
    with launched(folder, "--threads", "1", "--keep-gib", str(room)) as daemon:
        token = make_token()
        with changing(guests_beside(daemon.home / "token")) as guests:
            guests["uploaders"] = Guest(digest_of(token), Allowance(connections=clients))
        wait_for_worker(daemon)
        return speed(Load(daemon.url, token, clients, tiles, seed))


def echo_speed(clients: int, tiles: int, seed: str) -> Speed:
    """The same frames to the bare echo server."""
    with echoing() as url:
        return speed(Load(url, "", clients, tiles, seed, echo=True))


def speed(load: Load) -> Speed:
    """Let the clients send it from a process of their own."""
    if hasattr(os, "sync"):
        os.sync()
    with ProcessPoolExecutor(1, SPAWN) as clients:
        outcome: Outcome = clients.submit(run, load).result()
    pixels = load.clients * load.tiles * SIZE
    return Speed(pixels / 2**20 / outcome.seconds, (outcome.up + outcome.down) / 2**20 / outcome.seconds)


@contextlib.contextmanager
def echoing() -> Iterator[str]:
    """The address of an echo server in a process of its own."""
    ours, theirs = SPAWN.Pipe()
    server = SPAWN.Process(target=serve_echo, args=(theirs,), daemon=True)
    server.start()
    try:
        yield f"ws://127.0.0.1:{ours.recv()}"
    finally:
        server.terminate()
        server.join()


def serve_echo(pipe: Connection) -> None:
    """A bare server that sends back what comes; it tells `pipe` its port."""

    async def echo(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                await socket.send(message)

    async def forever() -> None:
        async with serve(echo, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None) as server:
            pipe.send(next(iter(server.sockets)).getsockname()[1])
            await server.wait_closed()

    asyncio.run(forever())


if __name__ == "__main__":
    main()
