"""The models of this machine, as its daemon offers them: what is there, what could be fetched, what will not fit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped] # it comes without types
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import Model

from ...models import catalog, folder_list, weight_files
from ...models.catalog import Entry, find_models
from ...models.download import Download
from ...models.exceptions import DownloadCancelled, ModelError
from ...models.fitness import Choice, Room, fitness, fitted
from ...models.hub import settings
from ...models.offers import Offer, sound_offers
from ...models.store import Store, cache_folder
from ...worker.interface import Memory
from ..pulls import FetchFailed, Progress

LOOKS = (catalog.log, folder_list.log, weight_files.log)
"""Where it is written what is wrong with models, each time that somebody looks at them."""


class Shelf:
    """What lies in `roots` and elsewhere on this machine, of which `choice` says how it is to be kept in memory."""

    def __init__(self, roots: Sequence[Path], choice: Choice) -> None:
        self._roots = roots
        self._choice = choice
        self._once = _Once()
        for log in LOOKS:
            log.addFilter(self._once)
        self._models: tuple[Model, ...] = ()
        self.look(None)

    @property
    def models(self) -> tuple[Model, ...]:
        """As they were when somebody last looked."""
        return self._models

    def look(self, room: Room | None) -> None:
        """See what is there now, and what of it fits into `room`, if that is known. Reads files."""
        entries = find_models(self._roots)
        models = _known(entries)
        if room is not None:
            models = tuple(
                fitted(model, fitness(model, room, self._choice, filed=entries[model.id].filed)) for model in models
            )
        self._models = models

    def fetch(self, model: str, on_progress: Callable[[Progress], None], left_off: threading.Event) -> bool:
        """Bring the files of a model here: see `Host.fetch`."""
        try:
            offer = sound_offers()[0].get(model)
            if offer is None:
                raise FetchFailed(describe("unknown_model", detail=model))
            Download(offer, Store(cache_folder()), settings()).run(on_progress, left_off)
        except DownloadCancelled:
            return False
        except ModelError as error:
            raise FetchFailed(error.info) from error
        except ValueError as error:  # What the user wrote into the catalog or the environment makes no sense.
            raise FetchFailed(describe("download_failed", model=model, detail=error)) from error
        return True

    def close(self) -> None:
        """Let others write into the log what they find."""
        for log in LOOKS:
            log.removeFilter(self._once)


def room_for_weights(device: str, memory: Memory | None) -> Room | None:
    """Where models can be while they are used: weights wait in RAM where the device has a memory of its own."""
    if memory is None:
        return None
    if not device.startswith("cuda"):
        return Room(memory.free, memory.total, on_cpu=device.startswith("cpu"))
    ram = psutil.virtual_memory()
    return Room(memory.free, memory.total, ram.available, ram.total)


class _Once(logging.Filter):
    """What is damaged is looked at again and again, and written into the log once."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        sentence = record.getMessage()
        if sentence in self._said:
            return False
        self._said.add(sentence)
        return True


def _known(entries: Mapping[str, Entry]) -> tuple[Model, ...]:
    """The models, and of those whose licence has to be accepted first, where."""
    known, _ = sound_offers()  # the catalog has written into the log what is wrong with the others
    return tuple(_with_address(entry.model, known.get(entry.model.id)) for entry in entries.values())


def _with_address(model: Model, offer: Offer | None) -> Model:
    if not model.gated or model.state != "absent" or offer is None or not offer.urls:
        return model
    return replace(model, detail=f"its files have to be fetched, once its licence is accepted at {offer.urls[0]}")
