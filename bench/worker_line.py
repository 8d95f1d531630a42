"""A worker in a process of its own, at the far end of two pipes: what a host says to it and hears, with the times."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from threading import Thread, Timer
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from underpaint_backend.worker.interface import Ready, frame, read_message
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
    """Jobs for workers on the CPU, one after another; a worker is replaced by one that has nothing loaded."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._command = [sys.executable, "-P", "-m", "underpaint_backend.worker", "--device", "cpu"]
        for root in roots:
            self._command += ["--models", str(root)]
        self._process: subprocess.Popen[bytes] | None = None
        self._heard: Queue[tuple[float, Record | None]] = Queue()
        self._after: tuple[str, float] | None = None
        self._cancelled: list[float] = []

    def renew(self) -> None:
        """A worker that has loaded nothing yet, and is ready."""
        self.close()
        self._heard = Queue()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        Thread(target=self._listen, args=(self._process.stdout, self._heard), daemon=True).start()
        while not isinstance(self._next()[1], Ready):
            pass

    def run(self, submit: Submit, tiles: dict[bytes, bytes], after: tuple[str, float] | None = None) -> Heard:
        """One job from its submission to the message that ends it, cancelled so many seconds `after` a phase began."""
        self._after, self._cancelled = after, []
        self._send(*(Tile(name, len(data), data) for name, data in tiles.items()), submit)
        phases: dict[str, float] = {}
        while True:
            when, message = self._next()
            if isinstance(message, Progress):
                phases.setdefault(message.phase, when)
            elif isinstance(message, TERMINAL):
                return Heard(phases, message, when, list(self._cancelled))

    def close(self) -> None:
        """End the worker, if there is one."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _next(self) -> tuple[float, Record]:
        when, message = self._heard.get()
        if message is None:
            raise SystemExit("the worker is gone")
        return when, message

    def _listen(self, said: BinaryIO, heard: Queue[tuple[float, Record | None]]) -> None:
        with said:
            while (message := read_message(said)) is not None:
                heard.put((time.perf_counter(), message))
                after = self._after
                if after is not None and isinstance(message, Progress) and message.phase == after[0]:
                    self._after = None
                    timer = Timer(after[1], self._cancel, [message.job])
                    timer.daemon = True
                    timer.start()
        heard.put((time.perf_counter(), None))

    def _cancel(self, job: str) -> None:
        self._cancelled.append(time.perf_counter())
        self._send(Cancel(job))

    def _send(self, *messages: Record) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"".join(frame(message) for message in messages))
        self._process.stdin.flush()


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
