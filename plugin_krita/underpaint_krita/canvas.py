"""Reading what a job needs from Krita. Main thread only; nothing is computed here but the box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from krita import Document, Krita, Node, Selection

from ._vendor.underpaint_protocol.errors import ErrorInfo, describe
from ._vendor.underpaint_protocol.exceptions import EmptySelection
from ._vendor.underpaint_protocol.geometry import Box, context_box
from .colour import is_srgb
from .events import Job, Place

SMALLEST_SELECTION = 16
"""Pixels in the selection's bounding box; in fewer, nothing can be told from anything."""


class Refused(Exception):
    """The picture cannot be painted into as it is. `error` says why."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class Scene:
    """Where a picture goes, and what lies there now.

    `box` is on the canvas. `pixels` (blue, green, red, alpha) and `mask` are as large as the box, and None without a
    selection. `above` is the layer to which the new one belongs, above it; None for the top.
    """

    document: Document
    above: Optional[Node]
    box: Box
    pixels: Optional[memoryview] = None
    mask: Optional[memoryview] = None

    @property
    def place(self) -> Place:
        """Where this is, in words that outlive Krita."""
        document = self.document
        return Place(self.box.x, self.box.y, document.width(), document.height(), document.fileName())


def read_scene(document: Optional[Document], max_pixels: int) -> Scene:
    """The scene for the selection of `document`, or for the whole canvas without a selection.

    Raises `Refused` if there is no picture, if it is not sRGB with 8 bits, if the selection is outside the canvas or
    too small, or if the box has more than `max_pixels`.
    """
    if document is None:
        raise Refused(describe("no_document"))
    _check_colours(document)
    active = document.activeNode()
    above = anchor(active)
    canvas = Box(0, 0, document.width(), document.height())
    selection = _selection(document, active)
    box = canvas if selection is None else _context(selection, canvas)
    if box.width * box.height > max_pixels:
        raise Refused(describe("too_many_pixels", detail=f"{box.width} x {box.height} pixels; {max_pixels} at most"))
    if selection is None:
        return Scene(document, above, box)
    # Krita copies the pixels; a view of its copy costs nothing more.
    pixels, mask = memoryview(document.pixelData(*box)), memoryview(selection.pixelData(*box))
    return Scene(document, above, box, pixels, mask)


def is_open(document: Document) -> bool:
    """Whether Krita still has `document`. Krita makes a new wrapper at every call, so only `==` tells."""
    return any(document == other for other in Krita.instance().documents())


def home_of(job: Job) -> Optional[Scene]:
    """Where the picture of a job from before belongs, if its document is open: the same file and size, or both unsaved.

    None if it is not open, if it has other colours now, or if several would do.
    """
    place, request = job.place, job.request
    fitting = [document for document in Krita.instance().documents() if _is_at(document, place)]
    if len(fitting) != 1:
        return None
    (document,) = fitting
    return Scene(document, anchor(document.activeNode()), Box(place.x, place.y, request.width, request.height))


def _is_at(document: Document, place: Place) -> bool:
    if (document.width(), document.height(), document.fileName()) != (place.width, place.height, place.document):
        return False
    try:
        _check_colours(document)
    except Refused:
        return False
    return True


def _check_colours(document: Document) -> None:
    if (document.colorModel(), document.colorDepth()) != ("RGBA", "U8"):
        raise Refused(describe("wrong_colour_space", detail=f"{document.colorModel()} with {_depth(document)}"))
    if not is_srgb(document.colorProfile()):
        raise Refused(describe("wrong_colour_profile", detail=document.colorProfile()))


def anchor(node: Optional[Node]) -> Optional[Node]:
    """The layer above which a new layer can be put for `node`: `node` itself, or what a mask is attached to."""
    while node is not None:
        parent = node.parentNode()
        if parent is None or parent.type() == "grouplayer":
            return node if parent is not None else None
        node = parent
    return None


def _selection(document: Document, active: Optional[Node]) -> Optional[Selection]:
    """A copy of what is selected: Krita's own object is live, and shared with the artist."""
    selection = document.selection() or _local_selection(active)
    return selection.duplicate() if selection is not None else None


def _local_selection(active: Optional[Node]) -> Optional[Selection]:
    """The selection mask of the active layer, which Krita does not count as the document's selection."""
    if active is None:
        return None
    for node in (active, *active.childNodes()):
        if node.type() == "selectionmask" and node.visible():
            return node.selection()
    return None


def _context(selection: Selection, canvas: Box) -> Box:
    bounds = Box(selection.x(), selection.y(), selection.width(), selection.height())
    inside = bounds.intersection(canvas)
    if not inside.empty and inside.width * inside.height < SMALLEST_SELECTION:
        raise Refused(describe("small_selection", detail=f"{inside.width} x {inside.height} pixels"))
    try:
        return context_box(bounds, canvas)
    except EmptySelection:
        raise Refused(describe("empty_selection")) from None


def _depth(document: Document) -> str:
    depth = str(document.colorDepth())
    return {"U8": "8 bits", "U16": "16 bits", "F16": "16-bit floats", "F32": "32-bit floats"}.get(depth, depth)
