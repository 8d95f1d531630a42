"""What takes long is done in the network thread: Krita's main thread asks for it and goes on."""

from __future__ import annotations

import hashlib
import random
import sys
import threading
import zlib
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita.events import Finished, Job

from .wire import PATIENCE, Client, Peer, serving

SIDE = 512
REQUEST = m.Request(model="primer", task="inpaint", width=SIDE, height=SIDE)
LABORIOUS = {"name_of", "cut", "join", "encode", "decode", "with_red_and_blue_swapped", "on_the_wire"}
"""Functions of the plugin and its protocol that go over all bytes of a picture or of a tile."""
PACKING = {hashlib.sha256.__name__, zlib.compress.__name__}
"""Those of Python that they call."""


class Doings:
    """Which of these were called, by thread, of the threads that are listened to."""

    def __init__(self) -> None:
        self.by_thread: dict[str, set[str]] = {}

    def note(self, frame: FrameType, event: str, called: Any) -> None:
        """Python tells this of each call and return."""
        code = frame.f_code
        if event == "call" and code.co_name in LABORIOUS and "underpaint_krita" in code.co_filename:
            self._add(code.co_name)
        elif event == "c_call" and called.__name__ in PACKING:
            self._add(called.__name__)

    def _add(self, name: str) -> None:
        self.by_thread.setdefault(threading.current_thread().name, set()).add(name)


@pytest.fixture
def doings() -> Iterator[Doings]:
    """Listens to this thread, which plays Krita's main thread, and to each thread that begins."""
    doings = Doings()
    threading.setprofile(doings.note)
    sys.setprofile(doings.note)
    yield doings
    sys.setprofile(None)
    threading.setprofile(None)  # type: ignore[arg-type]


def picture(seed: int) -> Job:
    """A job with a picture in which something can be packed."""
    pixels = bytearray(random.Random(seed).randbytes(SIDE)) * (4 * SIDE)
    return Job(f"job-{seed}", REQUEST, bytes(pixels), bytes(SIDE * SIDE))


def test_pixels_are_named_packed_and_unpacked_off_the_main_thread(doings: Doings) -> None:
    """A picture goes to another machine and comes back, and the main thread has touched no pixel of it."""
    packed: list[str] = []

    def talk(peer: Peer) -> None:
        have = peer.receive(m.Have)
        peer.send(m.Missing(have.tiles, query=have.query))
        while not isinstance(message := peer.receive(m.Tile, m.Submit), m.Submit):
            packed.append(message.encoding)
        peer.send(m.Accepted(message.job, 0), m.Started(message.job, 1))
        peer.give(message.job, SIDE, SIDE, bytes(4 * SIDE * SIDE))
        peer.send(m.Done(message.job, 1.0))
        peer.wait()

    with serving(talk) as server:
        client = Client()
        client.network.connect(server.replace("127.0.0.1", "0.0.0.0"), "token")  # which counts as another machine
        client.network.submit(picture(1))
        client.until(m.Done)
        client.network.close(PATIENCE)
    assert client.seen(Finished)
    assert set(packed) == {"zlib"}
    assert doings.by_thread["underpaint-network"] >= LABORIOUS | PACKING
    assert threading.current_thread().name not in doings.by_thread
