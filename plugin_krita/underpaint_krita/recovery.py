"""Pictures that come after their Krita, or their connection, went away. Main thread only.

If the document is open, the picture becomes a layer at its place, as if nothing had happened; else it goes into a file.
Only then is it acknowledged, so that the daemon keeps it until it is safe.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Dict, Iterable, Set, Union

from . import sentences
from ._vendor.underpaint_protocol.fields import Record
from ._vendor.underpaint_protocol.messages import TERMINAL, Done, Error, Failed
from .canvas import home_of
from .events import Event, Finished, Job, Kept, NotKept
from .generation import Generation, Outcome
from .network import Network
from .qt import QtCore, QtWidgets
from .recipe import recipe_of
from .rescue import rescue

OPENING = 5.0
"""Seconds for which a document may take to open: Krita may have been started with it."""
LOOKING = 500
"""Milliseconds between looks for it."""


class Recovery(QtCore.QObject):
    """The jobs of before, until each has its place."""

    told = QtCore.pyqtSignal(str)
    """A sentence for the artist."""

    def __init__(self, network: Network, parent: QtCore.QObject) -> None:
        super().__init__(parent)
        self._network = network
        self._jobs: Dict[str, Job] = {}
        self._running: Set[str] = set()

    @property
    def running(self) -> bool:
        """Whether one of them is still being painted, or waits to be."""
        return bool(self._running)

    def is_running(self, job: str) -> bool:
        """Whether this one is."""
        return job in self._running

    def take(self, jobs: Iterable[Job]) -> None:
        """Look after `jobs` from now on."""
        self._jobs.update((job.id, job) for job in jobs)

    def knows(self, job: str) -> bool:
        """Whether this job is looked after here."""
        return job in self._jobs

    def cancel(self) -> None:
        """Stop those that are still being painted."""
        for job in self._running:
            self._network.cancel(job)
            self._jobs.pop(job, None)
        self._running.clear()

    def leave(self) -> None:
        """Look after none of them any more; the server and the notebook still know them."""
        self._jobs.clear()
        self._running.clear()

    def handle(self, event: Union[Event, Record]) -> None:
        """Something happened to one of the jobs."""
        job = self._jobs[event.job]  # type: ignore[union-attr]
        if isinstance(event, Finished):
            if event.index == 0:
                self._place(job, event, time.monotonic() + OPENING)
        elif isinstance(event, Kept):
            self._safe(job, sentences.kept(job.request.prompt, event.path))
        elif isinstance(event, NotKept):
            self.told.emit(sentences.not_kept(job.request.prompt, event.problem))
        elif isinstance(event, (*TERMINAL, Error)):
            self._ended(job, event)
        else:
            self._running.add(job.id)

    def _ended(self, job: Job, event: Any) -> None:
        self._running.discard(job.id)
        if not isinstance(event, Done):
            del self._jobs[job.id]
        if isinstance(event, (Failed, Error)):
            forgotten = event.error.code == "unknown_job"
            self.told.emit(sentences.FORGOTTEN if forgotten else event.error.message)

    def _place(self, job: Job, picture: Finished, end: float) -> None:
        """Put a picture where it belongs; until `end` on the monotonic clock, its document may still open."""
        scene = home_of(job)
        if scene is not None:
            generation = Generation(scene, job.request.prompt)
            generation.ended.connect(partial(self._on_ended, job, picture))
            generation.finish(picture.pixels, recipe_of(job.request, picture.seed))
        elif time.monotonic() < end or QtWidgets.QApplication.activeModalWidget() is not None:
            QtCore.QTimer.singleShot(LOOKING, partial(self._place, job, picture, end))
        else:
            self._into_a_file(job, picture)

    def _on_ended(self, job: Job, picture: Finished, outcome: Outcome) -> None:
        if outcome is Outcome.CLOSED:
            self._into_a_file(job, picture)
        elif outcome is Outcome.FINISHED:
            self._safe(job, sentences.in_its_layer(job.request.prompt))
        else:  # The artist has seen it, and taken it away.
            self._network.acknowledge(job.id)

    def _into_a_file(self, job: Job, picture: Finished) -> None:
        request = job.request
        recipe = recipe_of(request, picture.seed)
        self._network.aside(partial(rescue, job.id, picture.pixels, request.width, request.height, recipe))

    def _safe(self, job: Job, sentence: str) -> None:
        self._network.acknowledge(job.id)
        self.told.emit(sentence)
