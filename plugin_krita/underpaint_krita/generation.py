"""One job as the main thread sees it: from the first preview to the finished layer, or to no trace at all.

Everything that may end a stroke waits for the gate. Whatever comes meanwhile replaces what was waiting: the newest
preview, then the picture, or the wish to be rid of it all.
"""

from __future__ import annotations

import enum
import time
from functools import partial
from typing import Any, Dict, Optional, Set

from .canvas import Scene, is_open
from .layer import GrowingLayer, Removal, gate_is_open
from .overlay import Overlay
from .pixels import KritaPixels
from .qt import QtCore

RETRY = 30
"""Milliseconds until the gate is tried again."""


class Outcome(enum.Enum):
    """How a generation ended."""

    FINISHED = "the picture is in its layer"
    DISCARDED = "the layer was taken away, as it was told"
    TAKEN_AWAY = "its layer was removed"
    CLOSED = "the document was closed"


class Generation(QtCore.QObject):
    """The layer of one job, from beginning to end. Main thread only; no method blocks."""

    ended = QtCore.pyqtSignal(Outcome)

    def __init__(self, scene: Scene, prompt: str) -> None:
        """It lives until it has ended, which may be long after its job has, and after the window it was begun in."""
        super().__init__()
        _going_on.add(self)
        self._scene = scene
        self._prompt = prompt
        self._overlay = Overlay(scene.document, scene.box)
        self._layer: Optional[GrowingLayer] = None
        self._removal: Optional[Removal] = None
        self._pixels: KritaPixels = None
        self._written: KritaPixels = None
        self._recipe: Optional[Dict[str, Any]] = None
        self._discarding = False
        self._over = False
        self._rest_until = 0.0
        self._timer = QtCore.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(RETRY)
        self._timer.timeout.connect(self._work)

    @property
    def complete(self) -> bool:
        """Whether the picture has come; it goes into its layer by itself, as soon as Krita lets it."""
        return self._recipe is not None

    def begin(self) -> None:
        """The job was accepted: make the layer."""
        self._work()

    def show(self, pixels: KritaPixels) -> None:
        """Show a preview, in place of any that was not shown yet."""
        if self._recipe is None and not self._discarding:
            self._pixels = pixels
            self._work()

    def finish(self, pixels: KritaPixels, recipe: Dict[str, Any]) -> None:
        """Put the picture into the layer; `recipe` says how it was made."""
        self._pixels, self._recipe = pixels, recipe
        self._work()

    def discard(self) -> None:
        """Take the layer away again, unless the picture has come already."""
        if self._recipe is None:
            self._discarding = True
            self._work()

    def leave(self) -> None:
        """The same, while a window is going: Krita dies if a layer is taken away before the window is gone."""
        if self._recipe is None and is_open(self._scene.document):
            self._discarding = True
            self._timer.start()
        else:
            self.discard()

    def _work(self) -> None:
        self._timer.stop()
        if not self._over and not self._advance():
            self._timer.start()

    def _advance(self) -> bool:
        """Do what is due, as far as Krita lets us; false if it must be tried again."""
        if not is_open(self._scene.document):
            return self._end(Outcome.CLOSED)
        if self._removal is not None:
            return self._removal.settle() and self._end(Outcome.DISCARDED)
        if self._layer is None:
            return self._make_layer()
        if self._layer.lost:
            return self._end(Outcome.TAKEN_AWAY)
        return self._layer.settle() and self._fill_layer(self._layer)

    def _make_layer(self) -> bool:
        if self._discarding:
            return self._end(Outcome.DISCARDED)
        if self._gate():
            self._layer = GrowingLayer(self._scene.document, self._scene.above, self._scene.box, self._prompt)
        return False

    def _fill_layer(self, layer: GrowingLayer) -> bool:
        if self._pixels is self._written and not self._discarding:
            return True
        if not self._gate():
            return False
        if self._discarding:
            self._removal = layer.remove()
            return False
        if self._recipe is not None and self._pixels is not None:
            layer.finish(self._pixels, self._recipe)
            return self._end(Outcome.FINISHED)
        return self._write(layer)

    def _write(self, layer: GrowingLayer) -> bool:
        """Show the newest preview, but leave the artist at least half of Krita's time."""
        begin = time.monotonic()
        if begin < self._rest_until or self._pixels is None:
            return False
        layer.write(self._pixels)
        self._written = self._pixels
        end = time.monotonic()
        self._rest_until = end + (end - begin)
        return True

    def _gate(self) -> bool:
        """Whether the layer may be touched now; while not, the newest preview lies over the canvas."""
        if gate_is_open(self._scene.document):
            self._overlay.hide()
            return True
        if self._pixels is not None and not self._discarding:
            self._overlay.show(self._pixels)
        else:
            self._overlay.hide()
        return False

    def _end(self, outcome: Outcome) -> bool:
        self._over = True
        self._overlay.hide()
        for watching in (self._layer, self._removal):
            if watching is not None:
                watching.release()
        self.ended.emit(outcome)
        QtCore.QTimer.singleShot(0, partial(_going_on.discard, self))  # Not at once: its own timer may have called.
        return True


_going_on: Set[Generation] = set()
"""All that have not ended. A window that is closed takes its docker along, but must leave no half a picture behind."""
