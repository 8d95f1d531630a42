"""The layer that a picture grows in: made once, filled again at every step, and in the end the picture itself.

`Node.setPixelData` makes no undo step, so the whole job is one step, "Add Layer", and redo brings back the last pixels
that were put in. That holds only for a layer that the artist cannot paint on meanwhile; hence the lock.
"""

from __future__ import annotations

import json
import time
from typing import Any, Dict, List, Optional, Set

from krita import Document, Node

from ._vendor.underpaint_protocol.geometry import Box
from .attention import Attention
from .canvas import anchor, is_open
from .pixels import KritaPixels
from .qt import QtCore
from .stacking import above_own_run

RECIPE = "underpaint/"
"""How annotations with recipes begin; the rest is the id of the layer, by which it is known when it was saved, too."""
HELPERS = ("selectionmask", "decorations-wrapper-layer")
"""Types of what Krita keeps among the layers and no artist takes for one."""
NAME_LENGTH = 60
"""Characters of the prompt in the layer's name. Very long names have corrupted files."""
LABEL = 1
"""Krita's colour label while the picture grows: blue."""
SETTLING = 1.0
"""Seconds for which Krita may still make a new layer the active one, or mark a document as modified after a removal."""


def gate_is_open(document: Document) -> bool:
    """Whether no stroke, transformation or move is going on, so that a call that ends strokes may be made now.

    Adding, removing and repainting layers cut off the artist's stroke on one version of Krita or another, and let
    Krita stand still for more than a second; `tryBarrierLock` tells without waiting.
    """
    if not document.tryBarrierLock():
        return False
    document.unlock()
    return True


_grown: Set[str] = set()
"""The ids of all layers that were made since Krita was started, finished or not."""


def _over_own(document: Document, node: Node) -> Node:
    """The layer above which a new one can be seen that belongs to `node`: see `above_own_run`."""
    finished = (str(name) for name in document.annotationTypes())
    own = _grown.union(name[len(RECIPE) :] for name in finished if name.startswith(RECIPE))
    around = (other for other in node.parentNode().childNodes() if other == node or other.type() not in HELPERS)
    siblings = {_id(sibling): sibling for sibling in around}
    return siblings[above_own_run(list(siblings), _id(node), own)]


def _id(node: Node) -> str:
    return str(node.uniqueId().toString())


class GrowingLayer:
    """One new layer above `above`, and above what was painted there before.

    Make and use it only while the gate is open.
    """

    def __init__(self, document: Document, above: Optional[Node], box: Box, prompt: str) -> None:
        self._document = document
        self._box = box
        self._prompt = prompt
        for other in list(_unsettled):
            other.give_back()  # What Krita has made active is then the artist's own again.
        self._active = document.activeNode()
        self._modified = document.modified()
        self._node = document.createNode(_name(prompt, "…"), "paintlayer")
        self._node.setLocked(True)
        self._node.setColorLabel(LABEL)
        _grown.add(_id(self._node))
        parent = above.parentNode() if above is not None else None
        if parent is not None:
            parent.addChildNode(self._node, _over_own(document, above))
        else:
            document.rootNode().addChildNode(self._node, None)
        document.setModified(self._modified)  # At once, before the artist can do anything; Krita may do it again.
        self._given_back = False
        self._settled = False
        self._attention = Attention(self.give_back)
        self._end = time.monotonic() + SETTLING
        _unsettled.append(self)

    @property
    def lost(self) -> bool:
        """Whether the artist took the layer away."""
        return self._node.parentNode() is None

    def settle(self) -> bool:
        """Give the artist's layer back its place as the active one, and the document its modified flag.

        Krita makes a new layer active some time after it was added, and never in a document that is not in front:
        false until that has happened, or had long enough to. It is to be called again and again: Krita may refuse it
        for as long as another window is in front.
        """
        if self not in _unsettled:
            return True
        refused = not self.give_back()
        if not self._settled:
            if not self._given_back and time.monotonic() < self._end:
                return False
            if self._document.modified() and not self._attention.taken:
                self._document.setModified(self._modified)
            self._settled = True
        if not refused:
            self.release()
        return True

    def give_back(self) -> bool:
        """Make the artist's layer the active one again, if Krita has made the new one so; false if Krita refuses.

        Also right before each press: Krita would refuse a stroke on the new layer, which is locked, and lose its ink.
        """
        if is_open(self._document) and self._document.activeNode() == self._node:
            if anchor(self._active) is not None:  # Else it was removed, and Krita would be left without an active one.
                self._document.setActiveNode(self._active)
                if self._document.activeNode() == self._node:
                    return False
            self._given_back = True
        return True

    def release(self) -> None:
        """Watch the artist no more, whatever became of the layer. Twice does no harm."""
        if self in _unsettled:
            _unsettled.remove(self)
        self._attention.end()

    def write(self, pixels: KritaPixels) -> None:
        """Show `pixels`, which are as large as the box."""
        self._node.setPixelData(pixels, *self._box)
        self._document.refreshProjection()

    def finish(self, pixels: KritaPixels, recipe: Dict[str, Any]) -> None:
        """Turn the layer into an ordinary one that holds the picture; `recipe` is kept in the document."""
        self._make_ordinary()
        self._document.setAnnotation(
            f"{RECIPE}{_id(self._node)}",
            "How Underpaint painted a layer",
            QtCore.QByteArray(json.dumps(recipe, ensure_ascii=False).encode("utf-8")),
        )
        self._document.setModified(True)
        self.write(pixels)

    def _make_ordinary(self) -> None:
        self._node.setName(_name(self._prompt))
        self._node.setColorLabel(0)
        self._node.setLocked(False)

    def remove(self) -> Removal:
        """Take the layer away again. The removal that is returned has still to be waited for."""
        modified = self._document.modified()
        # Undo can bring the layer back; nobody wants half a picture, or a layer that cannot be painted on.
        self._make_ordinary()
        self._node.setPixelData(QtCore.QByteArray(4 * self._box.width * self._box.height, b"\0"), *self._box)
        self._node.remove()
        return Removal(self._document, modified)


_unsettled: List[GrowingLayer] = []
"""Those that Krita may have made the active layer, or may still make so."""


class Removal:
    """A layer that was just removed. Krita marks the document as modified some time later."""

    def __init__(self, document: Document, modified: bool) -> None:
        self._document = document
        self._modified = modified
        self._attention = Attention()
        self._end = time.monotonic() + SETTLING

    def settle(self) -> bool:
        """Put the modified flag back as it was; false until Krita has touched it, or had long enough to do so.

        If the artist did anything meanwhile, the flag stays as it is: it may be their own work that set it.
        """
        touched = self._document.modified()
        settled = touched or self._attention.taken or time.monotonic() > self._end
        if touched and not self._modified and not self._attention.taken:
            self._document.setModified(False)
        if settled:
            self.release()
        return settled

    def release(self) -> None:
        """Watch the artist no more, whatever became of the document. Twice does no harm."""
        self._attention.end()


def _name(prompt: str, ending: str = "") -> str:
    line = " ".join(prompt.split()) or "Underpaint"
    return line + ending if len(line) <= NAME_LENGTH else line[: NAME_LENGTH - 1].rstrip() + "…"
