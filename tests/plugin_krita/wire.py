"""Both ends of the plugin's wire: a client with a real network thread, a server that talks as told, and a proxy."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita._vendor.underpaint_protocol.images import image_of
from underpaint_krita.events import Frame, Job
from underpaint_krita.mailbox import Mailbox
from underpaint_krita.network import Network
from underpaint_krita.notebook import Notebook
from underpaint_krita.pixels import with_red_and_blue_swapped
from websockets.sync.server import Server, ServerConnection, serve

MODEL = m.Model("primer", "Primer", "stable_diffusion", ("inpaint",), ("ddim",), 16384, 8, 12, 3.0, "ddim")
LIMITS = m.Limits(1 << 24, 4, 4, 1 << 28, 86400, 30)
SESSION = "5" * 32
WELCOME = m.Welcome("test", SESSION, m.Worker("ready", "cpu"), (MODEL,), LIMITS)
REQUEST = m.Request(model="primer", task="inpaint", width=2, height=1, prompt="red")
JOB = Job("job-1", REQUEST, pixels=b"\x01\x02\x03\x04\x05\x06\x07\x08", mask=b"\x00\xff")
PATIENCE = 30.0

Talk = Callable[["Peer"], None]
LARGE = 2048
LARGE_TILES = (LARGE // 256) ** 2 + 1
"""Of the picture, no two alike, and one of the mask."""


def large_job() -> Job:
    """A job called "large", of more pixels than fit into the buffers of a connection: 16 MiB."""
    request = m.Request(model="primer", task="inpaint", width=LARGE, height=LARGE)
    return Job("large", request, random.Random(5).randbytes(4 * LARGE * LARGE), bytes(LARGE * LARGE))


class Peer:
    """The server's end of one connection."""

    def __init__(self, connection: ServerConnection, numbers: Iterator[int]) -> None:
        self.connection = connection
        self._numbers = numbers

    def send(self, *sent: Any) -> None:
        """Send messages; those of state get the next numbers."""
        for message in sent:
            numbered = isinstance(message, m.STATE)
            message = dataclasses.replace(message, seq=next(self._numbers)) if numbered else message
            self.connection.send(m.vocabulary.encode(message))

    def receive(self, *kinds: type[Any]) -> Any:
        """The next message of one of these types; others are passed over."""
        while True:
            message = m.vocabulary.decode(self.connection.recv(PATIENCE))  # type: ignore[arg-type]
            if isinstance(message, kinds):
                return message

    def take_job(self) -> tuple[m.Submit, dict[bytes, bytes]]:
        """Ask for all pixels of the next job; it and its tiles."""
        tiles = {}
        while not isinstance(message := self.receive(m.Have, m.Tile, m.Submit), m.Submit):
            if isinstance(message, m.Have):
                self.send(m.Missing(message.tiles, query=message.query))
            else:
                tiles[message.name] = message.data
        return message, tiles

    def accept_job(self) -> str:
        """Take the next job and accept it; its id."""
        job = self.take_job()[0].job
        self.send(m.Accepted(job, 0), m.Started(job, 1))
        return str(job)

    def give(self, job: str, width: int, height: int, pixels: bytes) -> None:
        """A finished picture of a job, with its tiles when they are asked for."""
        image, tiles = image_of(width, height, 4, pixels)
        self.send(m.Result(job, 0, 7, image))
        self.send(*(m.Tile(name, len(tiles[name]), tiles[name]) for name in self.receive(m.Fetch).tiles))

    def preview(self, job: str, step: int, data: bytes) -> None:
        self.send(m.Preview(job, 0, step, 8, 8, data, 0.0))

    def wait(self) -> None:
        """Wait until the client goes."""
        with contextlib.suppress(Exception):
            while True:
                self.connection.recv()


class Client:
    """A network thread with a mailbox, and what has come out of it."""

    def __init__(
        self, develop: Callable[..., bytes] = lambda data, *rest: data, notebook: Notebook | None = None
    ) -> None:
        self.woken = threading.Event()
        self.mailbox: Mailbox[Any, Frame] = Mailbox(self.woken.set)
        self.network = Network(self.mailbox, develop, with_red_and_blue_swapped, notebook)
        self.events: list[Any] = []
        self.frames: list[Frame] = []

    def until(self, kind: type[Any], where: Callable[[Any], bool] = lambda event: True) -> Any:
        """Collect until an event of this type comes for which `where` holds, and return it."""
        end = time.monotonic() + PATIENCE
        while not self.seen(kind, where):
            assert self.woken.wait(max(0.0, end - time.monotonic())), f"no {kind.__name__} among {self.events}"
            self.collect()
        return self.seen(kind, where)[0]

    def seen(self, kind: type[Any], where: Callable[[Any], bool] = lambda event: True) -> list[Any]:
        """What has come of this type."""
        return [event for event in self.events if isinstance(event, kind) and where(event)]

    def collect(self) -> None:
        self.woken.clear()
        events, frame = self.mailbox.collect()
        self.events += events
        self.frames += [frame] if frame is not None else []

    def welcomed(self, server: str, token: str = "token") -> m.Welcome:
        """Connect, and wait for the greeting."""
        self.network.connect(server, token)
        welcome: m.Welcome = self.until(m.Welcome)
        return welcome


@contextlib.contextmanager
def serving(*talks: Talk, **options: Any) -> Iterator[str]:
    """A websocket server on a free port that greets each client and then talks as told; its address.

    Of several talks, each connection has the next one, and those that come later the last one.
    """
    numbers, turn = itertools.count(1), itertools.count()

    def handle(connection: ServerConnection) -> None:
        peer = Peer(connection, numbers)
        with contextlib.suppress(Exception):
            peer.receive(m.Hello)
            peer.send(WELCOME)
            talks[min(next(turn), len(talks) - 1)](peer)

    options = {"subprotocols": [m.SUBPROTOCOL], "compression": None, "close_timeout": 1, **options}
    with serve(handle, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{_port(server)}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def deaf(**options: Any) -> Iterator[str]:
    """A server that asks for the pixels of a job and reads none of them; its address."""
    release = threading.Event()

    def talk(peer: Peer) -> None:
        have = peer.receive(m.Have)
        peer.send(m.Missing(have.tiles, query=have.query))
        release.wait(PATIENCE)

    with serving(talk, **options) as server:
        yield server
        release.set()


def _port(server: Server) -> int:
    return int(server.socket.getsockname()[1])


class Proxy:
    """Stands between client and server, counts what passes, and cuts the line when it is told to."""

    def __init__(self, server: str) -> None:
        self._behind = ("127.0.0.1", int(server.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lines: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._limits = {"up": float("inf"), "down": float("inf")}
        self.open = True
        """Whether new connections get through."""
        self.passed = {"up": 0, "down": 0}
        """Bytes from the client to the server, and back."""
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Break every connection, without a word to either side."""
        self._limits = {"up": float("inf"), "down": float("inf")}
        lines, self._lines = self._lines, []
        for line in lines:
            with contextlib.suppress(OSError):
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                line.shutdown(socket.SHUT_RDWR)

    def cut_after(self, direction: str, size: int) -> None:
        """Cut the line as soon as `size` more bytes have gone "up" to the server or "down" to the client."""
        self._limits[direction] = self.passed[direction] + size

    def hold(self) -> None:
        """Let nothing through any more, and keep the lines open, as a laptop does that was closed."""
        self._flowing.clear()

    def close(self) -> None:
        """Take no more connections and break those that there are."""
        self._flowing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.cut()

    def _accept(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._join(client)

    def _join(self, client: socket.socket) -> None:
        if not self.open:
            client.close()
            return
        try:
            server = socket.create_connection(self._behind)
        except OSError:
            client.close()
            return
        self._lines += [client, server]
        for source, target, direction in ((client, server, "up"), (server, client, "down")):
            threading.Thread(target=self._pass, args=(source, target, direction), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                self._flowing.wait()
                self.passed[direction] += len(data)
                if self.passed[direction] >= self._limits[direction]:
                    self.cut()
                    break
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        source.close()


def eventually(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
