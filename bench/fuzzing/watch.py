"""What others notice of it: a client that behaves, and the daemon's memory, processes and log."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from pathlib import Path

from underpaint_backend.launch import Launched
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import SUBPROTOCOL, Have, Hello, Missing, vocabulary
from underpaint_protocol.vocabulary import FROM_SERVER
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol
from wire.process import children

INTERVAL = 0.1
PATIENCE = 30.0
FRAME = re.compile(r' *File "(.*)", line (\d+), in (.*)')


class Watcher:
    """Asks a daemon something every 100 ms, in a thread of its own, and notes how long the answers take, in seconds."""

    def __init__(self, daemon: Launched) -> None:
        self.seconds: list[float] = []
        self.lost = 0
        """Connections that ended although nothing was wrong with them."""
        self._daemon = daemon
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher")

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                with self._connected() as socket:
                    _ask(socket, Hello("watcher"))
                    self._ask_often(socket)
            except (OSError, ConnectionClosed, TimeoutError):
                self.lost += 1
                self._over.wait(INTERVAL)

    def _connected(self) -> ClientConnection:
        return connect(
            self._daemon.url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {self._daemon.token}"},
            compression=None,
            proxy=None,
        )

    def _ask_often(self, socket: ClientConnection) -> None:
        while not self._over.wait(INTERVAL):
            began = time.perf_counter()
            _ask(socket, Have(len(self.seconds), (bytes(16),)))
            self.seconds.append(time.perf_counter() - began)


def _ask(socket: ClientConnection, message: Record) -> None:
    """Send a message and wait for what answers it; news may come before."""
    socket.send(vocabulary.encode(message))
    while True:
        answer = vocabulary.decode(_bytes(socket.recv(PATIENCE)), FROM_SERVER)
        if isinstance(message, Hello) or (isinstance(answer, Missing) and isinstance(message, Have)):
            return


def _bytes(frame: str | bytes) -> bytes:
    return frame if isinstance(frame, bytes) else frame.encode()


def tracebacks(daemon: Launched) -> Counter[str]:
    """Exceptions that reached the log, with file, line and function, as in "KeyError at book.py:12 in open"."""
    seen: Counter[str] = Counter()
    inside, place = False, ""
    for line in daemon.log.read_text("utf-8", "replace").splitlines():
        if inside and not line.startswith(" "):
            seen[line.partition(":")[0] + place] += 1
        if inside and (frame := FRAME.fullmatch(line)):
            place = f" at {Path(frame[1]).name}:{frame[2]} in {frame[3]}"
        inside = line.startswith("Traceback") or (inside and line.startswith(" "))
    return seen


def deaths(daemon: Launched, worker: list[int]) -> dict[str, int]:
    """How often the daemon died, and its worker, which was the process `worker`; at most once each."""
    dead = daemon.process.poll() is not None
    return {"daemon died": int(dead), "worker died": int(not dead and children(daemon.process.pid) != worker)}
