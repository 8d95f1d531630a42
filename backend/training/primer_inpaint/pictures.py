"""The training pictures on disk: drawn once, in chunks, by a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .samples import draw_sample

CHUNK = 1024
"""Pictures in one file."""


def _draw_chunk(folder: Path, seed: int, number: int) -> None:
    samples = [draw_sample(seed, number * CHUNK + index) for index in range(CHUNK)]
    part = folder / f"{number:05}.part"
    with part.open("wb") as file:
        np.savez(
            file,
            images=np.stack([sample.image for sample in samples]),
            masks=np.stack([sample.mask for sample in samples]),
            captions=np.array(json.dumps([sample.captions for sample in samples])),
        )
    part.rename(folder / f"{number:05}.npz")


def _draw_all(folder: Path, seed: int, chunks: int, parent: int) -> None:
    os.nice(5)
    for number in range(chunks):
        # A killed training run cannot stop this process: it notices and goes by itself.
        if os.getppid() != parent:
            return
        if not (folder / f"{number:05}.npz").exists():
            _draw_chunk(folder, seed, number)


class Pictures:
    """Pictures of one seed in a folder; drawing starts with `start` and goes on by itself."""

    def __init__(self, folder: Path, seed: int, chunks: int) -> None:
        self.folder = folder
        self.seed = seed
        self.chunks = chunks
        self._images: list[NDArray[np.uint8]] = []

    def start(self) -> None:
        """Draw what is missing in a process that ends with this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = (self.folder, self.seed, self.chunks, os.getpid())
        context = multiprocessing.get_context("spawn")
        context.Process(target=_draw_all, args=arguments, daemon=True).start()

    def _wait_for(self, number: int) -> Path:
        path = self.folder / f"{number:05}.npz"
        while not path.exists():
            time.sleep(0.5)
        return path

    def chunk(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[tuple[str, ...]]]:
        """Images `[CHUNK, S, S, 3]`, masks `[CHUNK, S, S]` and captions; waits until drawn."""
        with np.load(self._wait_for(number)) as arrays:
            captions = [tuple(texts) for texts in json.loads(str(arrays["captions"]))]
            return arrays["images"], arrays["masks"], captions

    def draw_batch(self, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
        """Random images `[size, S, S, 3]` among those drawn so far."""
        number = len(self._images)
        if number < self.chunks and (number == 0 or self._is_drawn(number)):
            self._images.append(self.chunk(number)[0])
        index = rng.integers(0, len(self._images) * CHUNK, size)
        return np.stack([self._images[i // CHUNK][i % CHUNK] for i in index])

    def _is_drawn(self, number: int) -> bool:
        return (self.folder / f"{number:05}.npz").exists()
