"""Small pictures of tiny models, and how far they are apart."""

from __future__ import annotations

from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, paint
from underpaint_backend.engine.precision import Memory
from underpaint_backend.models.catalog import Entry


def opened(entry: Entry, memory: Memory | None = None) -> LoadedModel:
    """The model in a library of its own."""
    return Library(open_device("cpu"), memory).load(entry, lambda fraction: None, Event())


def painted(model: LoadedModel, cancelled: Event | None = None, **changes: Any) -> NDArray[np.uint8]:
    """A small picture, made in two steps."""
    scheduler = model.description.default_scheduler
    painting = Painting((64, 64), "a red cat", "", 1.0, scheduler, 2, 1.0, [1], **changes)
    observer = Observer(lambda phase: None, lambda step: None)
    return paint(model, painting, observer, cancelled or Event())


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Of 255, on the mean."""
    return float(np.abs(first.astype(float) - second.astype(float)).mean())
