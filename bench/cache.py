"""What a second job costs that repeats a prompt and a canvas: nothing is read, encoded or loaded twice.

Jobs run through a worker's own code, in this process, on the built-in model; the second differs from the first in its
seed alone. Denoising is left out of both, as each has to do it. A second model stands beside it: a copy, whose
files are files of their own.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any
from unittest.mock import patch

import numpy as np
from report import Figure, show
from underpaint_backend.engine.device import open_device
from underpaint_backend.models.catalog import DESCRIPTION, default_roots
from underpaint_backend.worker.inbox import Job
from underpaint_backend.worker.outbox import Outbox
from underpaint_backend.worker.worker import Worker
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Failed, Progress, Request, Submit

MODEL, OTHER = "primer-inpaint", "primer-copy"
SIDE = 256


def main() -> None:
    """Run the jobs and print the second's time over the first's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    show(measure(arguments.steps), arguments.json)


def measure(steps: int) -> Figure:
    """The rows: seconds without denoising of a first job and of others, and what was encoded and read."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, UNDERPAINT_HOME=f"{folder}/home"):
        models = Path(folder) / "models"
        build_other(models)
        outbox = Clock()
        roots = [*default_roots()[:1], models]
        worker = Worker(open_device("cpu"), roots, outbox)
        first = seconds(worker, outbox, job("first", MODEL, "a red circle", steps, seed=1))
        second = median(
            seconds(worker, outbox, job(f"second-{seed}", MODEL, "a red circle", steps, seed)) for seed in range(2, 7)
        )
        warm = median(
            seconds(
                Worker(open_device("cpu"), roots, outbox), outbox, job(f"warm-{number}", MODEL, "a red circle", steps)
            )
            for number in range(5)
        )
        with counted(worker, "encode_prompt") as encoded:
            for prompt in ("blue stripes", "a yellow star", "blue stripes"):
                seconds(worker, outbox, job(f"prompt-{len(outbox.moments)}", MODEL, prompt, steps))
        worker._library.clear()
        before = worker._library.residency.reads
        for number in range(6):
            seconds(worker, outbox, job(f"turn-{number}", (MODEL, OTHER)[number % 2], "a red circle", steps))
        networks = len(worker._library.load(_entry(worker, MODEL), lambda done: None, Event()).family.parts.names)
        reads = (worker._library.residency.reads - before) / networks
    rows: list[dict[str, object]] = [
        {"what": "first job of a worker without denoising, s", "value": first, "goal": ""},
        {"what": "second job without denoising, s, median of 5", "value": second, "goal": ""},
        {"what": "one that reads and encodes all anew in a warm process, s, median of 5", "value": warm, "goal": ""},
        {"what": "second job over that one", "value": second / warm, "goal": ""},
        {"what": "text encodings for prompts a, b, a", "value": len(encoded), "goal": "2"},
        {"what": "models read from the disk, of two that take 3 turns each", "value": reads, "goal": "2"},
    ]
    return Figure("cache", second / first, "x", "<= 0.1", rows)


def seconds(worker: Worker, outbox: Clock, work: Job) -> float:
    """Seconds of a job, without its denoising."""
    outbox.moments.clear()
    began = time.perf_counter()
    worker.run(work)
    whole = time.perf_counter() - began
    return whole - (outbox.moments["decoding"] - outbox.moments["denoising"])


def job(name: str, model: str, prompt: str, steps: int, seed: int = 0) -> Job:
    """A job that paints into the middle of a picture that is the same for all."""
    pixels = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    pixels[..., 3] = 255
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[64:192, 64:192] = 255
    image, tiles = image_of(SIDE, SIDE, 4, pixels.tobytes())
    selection, more = image_of(SIDE, SIDE, 1, mask.tobytes())
    request = Request(
        model=model,
        task="inpaint",
        width=SIDE,
        height=SIDE,
        prompt=prompt,
        guidance=1.0,
        steps=steps,
        seed=seed,
        image=image,
        mask=selection,
    )
    return Job(Submit(name, request), {name: bytes(tile) for name, tile in (tiles | more).items()})


class Clock(Outbox):
    """An outbox to nowhere, which keeps the moment at which each phase of a job began."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.moments: dict[str, float] = {}

    def send(self, *messages: Record) -> None:
        for message in messages:
            if isinstance(message, Progress):
                self.moments.setdefault(message.phase, time.perf_counter())
            if isinstance(message, Failed):
                raise SystemExit(message.error.message)


@contextmanager
def counted(worker: Worker, name: str) -> Iterator[list[object]]:
    """The calls of a method of the built-in model."""
    family: Any = worker._library.load(_entry(worker, MODEL), lambda done: None, Event()).family
    calls: list[object] = []
    own = getattr(family, name)

    def count(*given: object) -> object:
        calls.append(given)
        return own(*given)

    setattr(family, name, count)
    try:
        yield calls
    finally:
        delattr(family, name)


def build_other(folder: Path) -> None:
    """A copy of the built-in model under another name."""
    built_in = next(path.parent for path in default_roots()[0].glob(f"*/{DESCRIPTION}"))
    shutil.copytree(built_in, folder / OTHER)
    description = json.loads((folder / OTHER / DESCRIPTION).read_text(encoding="utf-8"))
    (folder / OTHER / DESCRIPTION).write_text(json.dumps({**description, "id": OTHER}), encoding="utf-8")


def _entry(worker: Worker, model: str) -> Any:
    return worker._entry(model)


if __name__ == "__main__":
    main()
