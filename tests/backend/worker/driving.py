"""A real worker process, driven over its pipes as the server does."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from underpaint_backend.worker.interface import Ready, frame, read_message
from underpaint_protocol import images
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import TERMINAL, Image, Request, Result, Submit, Tile

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

PATIENCE = 30.0
"""Seconds that a worker gets for its next message on a busy machine."""


class WorkerProcess:
    """A worker and everything it said, in order."""

    def __init__(self, roots: Sequence[Path], *words: str, log: BinaryIO | None = None) -> None:
        command = [sys.executable, "-P", "-m", "underpaint_backend.worker", "--device", "cpu", "--threads", "1"]
        for root in roots:
            command += ["--models", str(root)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([*command, *words], stdin=pipe, stdout=pipe, stderr=log)
        self._said: Queue[Record | None] = Queue()
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        try:
            while (message := read_message(self.process.stdout)) is not None:
                self._said.put(message)
        finally:
            self._said.put(None)

    def send(self, *messages: Record) -> None:
        """Write messages."""
        self.write(b"".join(frame(message) for message in messages))

    def write(self, data: bytes) -> None:
        """Write raw bytes."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def next(self) -> Record:
        """The next message. Raises `EOFError` if the worker ended."""
        message = self._said.get(timeout=PATIENCE)
        if message is None:
            raise EOFError("the worker ended")
        return message

    def wait_ready(self) -> Ready:
        """Wait until the worker has imported everything."""
        message = self.next()
        assert isinstance(message, Ready)
        return message

    def run(self, request: Request, *pixels: Pixels, job: str = "job", previews: bool = True) -> list[Record]:
        """Run one job, and return all messages up to its end."""
        self.submit(request, *pixels, job=job, previews=previews)
        return list(self.until_end())

    def submit(self, request: Request, *pixels: Pixels, job: str = "job", previews: bool = True) -> None:
        """Send a job and its tiles."""
        for array in pixels:
            self.send(*(Tile(name, len(data), data) for name, data in tiled(array)[1].items()))
        self.send(Submit(job, request, previews))

    def until_end(self) -> Iterator[Record]:
        """Messages up to the end of the job."""
        while True:
            message = self.next()
            yield message
            if isinstance(message, TERMINAL):
                return

    def until(self, wanted: Callable[[Record], bool]) -> Record:
        """Skip messages up to the one that is wanted, and return that one."""
        while not wanted(message := self.next()):
            pass
        return message

    def close(self) -> int:
        """Close the worker's input, and return its exit code."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def canvas_of(width: int, height: int, channels: int = 4) -> NDArray[np.uint8]:
    """A canvas [height, width, channels] in many colours, opaque."""
    canvas = np.random.default_rng(width).integers(0, 256, (height, width, channels), np.uint8)
    if channels == 4:
        canvas[..., 3] = 255
    return canvas


def soft_mask_of(width: int, height: int) -> NDArray[np.uint8]:
    """A mask [height, width] with a rectangle in the middle, soft on its left side."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : -height // 4, width // 4 : -width // 4] = 255
    mask[height // 4 : -height // 4, width // 4] = 100
    return mask


def tiled(pixels: Pixels) -> tuple[Image, dict[bytes, bytes]]:
    """The protocol's name for pixels [H, W, C] or [H, W], and their tiles."""
    height, width, *channels = pixels.shape
    depth = 8 * pixels.itemsize
    return images.image_of(width, height, channels[0] if channels else 1, pixels.tobytes(), depth=depth)


def image_of(pixels: Pixels) -> Image:
    """The protocol's name for pixels [H, W, C] or [H, W]."""
    return tiled(pixels)[0]


def pictures_of(messages: Sequence[Record]) -> list[Pixels]:
    """The finished pictures [H, W, 4] among messages, put together from their tiles."""
    tiles: dict[bytes, bytes] = {}
    pictures: list[Pixels] = []
    for message in messages:
        if isinstance(message, Tile):
            tiles[message.name] = message.data
        elif isinstance(message, Result):
            image = message.image
            kind = np.uint8 if image.depth == 8 else np.uint16
            samples = np.frombuffer(images.pixels_of(image, tiles), kind)
            pictures.append(samples.reshape(image.height, image.width, image.channels))
    return pictures
