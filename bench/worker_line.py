"""A worker in this process, at the far end of two pipes: what a host says to it and hears from it, with the times."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from threading import Thread, Timer

import numpy as np
from numpy.typing import NDArray
from underpaint_backend.engine.device import open_device
from underpaint_backend.worker.inbox import Inbox
from underpaint_backend.worker.interface import frame, read_message
from underpaint_backend.worker.outbox import Outbox
from underpaint_backend.worker.worker import Worker
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import TERMINAL, Cancel, Image, Progress, Submit, Tile


@dataclass(frozen=True)
class Heard:
    """One job as its host heard it: when each phase began, when it was cancelled, and its end. Times are in seconds."""

    phases: dict[str, float]
    end: Record
    ended: float
    cancelled: list[float] = field(default_factory=list)

    def whole(self, phase: str) -> float:
        """How long a phase took, which was not the last."""
        began = self.phases[phase]
        return min([time for time in self.phases.values() if time > began], default=self.ended) - began


class Line:
    """Jobs for workers, one after another; a worker can be replaced by a new one, which has nothing loaded."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        into, self._way_in = os.pipe()
        out, way_out = os.pipe()
        self._outbox = Outbox(os.fdopen(way_out, "wb"))
        self._inbox = Inbox(os.fdopen(into, "rb"), self._outbox)
        self._heard: Queue[tuple[float, Record]] = Queue()
        self._said = os.fdopen(out, "rb")
        self._after: tuple[str, float] | None = None
        self._cancelled: list[float] = []
        Thread(target=self._inbox.read, daemon=True).start()
        Thread(target=self._listen, daemon=True).start()
        self.renew()

    def renew(self) -> None:
        """A worker that has loaded nothing yet."""
        self.worker = Worker(open_device("cpu"), self._roots, self._outbox)

    def run(self, submit: Submit, tiles: dict[bytes, bytes], after: tuple[str, float] | None = None) -> Heard:
        """One job from its submission to the message that ends it, cancelled so many seconds `after` a phase began."""
        self._after, self._cancelled = after, []
        self._send(*(Tile(name, len(data), data) for name, data in tiles.items()), submit)
        job = self._inbox.next()
        self.worker.run(job)
        self._inbox.forget(job)
        phases: dict[str, float] = {}
        while True:
            when, message = self._heard.get()
            if isinstance(message, Progress):
                phases.setdefault(message.phase, when)
            elif isinstance(message, TERMINAL):
                return Heard(phases, message, when, list(self._cancelled))

    def close(self) -> None:
        """End both threads."""
        os.close(self._way_in)

    def _listen(self) -> None:
        while (message := read_message(self._said)) is not None:
            self._heard.put((time.perf_counter(), message))
            after = self._after
            if after is not None and isinstance(message, Progress) and message.phase == after[0]:
                self._after = None
                timer = Timer(after[1], self._cancel, [message.job])
                timer.daemon = True
                timer.start()

    def _cancel(self, job: str) -> None:
        self._cancelled.append(time.perf_counter())
        self._send(Cancel(job))

    def _send(self, *messages: Record) -> None:
        data = b"".join(frame(message) for message in messages)
        while data:
            data = data[os.write(self._way_in, data) :]


@contextmanager
def line_to(roots: Sequence[Path]) -> Iterator[Line]:
    """A line that is closed in the end."""
    line = Line(roots)
    try:
        yield line
    finally:
        line.close()


def named(*pictures: NDArray[np.uint8]) -> tuple[list[Image], dict[bytes, bytes]]:
    """Pictures [H, W, C] or masks [H, W] as a request names them, and their tiles."""
    images: list[Image] = []
    tiles: dict[bytes, bytes] = {}
    for pixels in pictures:
        height, width, *channels = pixels.shape
        image, found = image_of(width, height, channels[0] if channels else 1, pixels.tobytes())
        images.append(image)
        tiles |= found
    return images, tiles
