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
from underpaint_protocol import blobs
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import TERMINAL, Image, Request, Result, Submit

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

    def run(self, request: Request, *pixels: bytes, job: str = "job", previews: bool = True) -> list[Record]:
        """Run one job, and return all messages up to its end."""
        self.submit(request, *pixels, job=job, previews=previews)
        return list(self.until_end())

    def submit(self, request: Request, *pixels: bytes, job: str = "job", previews: bool = True) -> None:
        """Send a job and its blobs."""
        for data in pixels:
            self.send(*blobs.chunks(blobs.digest_of(data), data))
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


def image_of(pixels: NDArray[np.uint8]) -> Image:
    """The protocol's name for pixels [H, W, C] or [H, W]."""
    height, width, *channels = pixels.shape
    return blobs.image_of(width, height, channels[0] if channels else 1, pixels.tobytes())


def pictures_of(messages: Sequence[Record]) -> list[NDArray[np.uint8]]:
    """The finished pictures [H, W, 4] among messages, put together from their blobs."""
    store, pictures = blobs.BlobStore(1 << 28), []
    for message in messages:
        if isinstance(message, blobs.BlobChunk):
            store.add(message)
        elif isinstance(message, Result):
            image, data = message.image, store.take(message.image.blob)
            assert data is not None
            pictures.append(np.frombuffer(data, np.uint8).reshape(image.height, image.width, image.channels))
    return pictures
