"""The newest preview painted over the canvas, for as long as the layer may not be touched.

While the artist is in the middle of a stroke or a transformation, a repaint of the layer would cut it off. A
transparent widget on top of the canvas does not: it lets every click and tablet event through.
"""

from __future__ import annotations

from typing import Any, Optional

from krita import Document, Krita

from ._vendor.underpaint_protocol.geometry import Box
from .pixels import KritaPixels
from .qt import QtCore, QtGui, QtWidgets

CANVASES = ("KisOpenGLCanvas2", "KisQPainterCanvas")
POINTS_PER_INCH = 72.0


class Overlay:
    """Shows previews of `box` over the view of `document`, where it has the focus."""

    def __init__(self, document: Document, box: Box) -> None:
        self._document = document
        self._box = box
        self._sheet: Optional[_Sheet] = None

    def show(self, pixels: KritaPixels) -> None:
        """Paint `pixels` over the canvas; called again, it follows pan and zoom."""
        view = Krita.instance().activeWindow().activeView()
        canvas = _canvas_widget()
        transform = image_to_widget(view, canvas) if canvas and self._document == view.document() else None
        if transform is None:
            self.hide()
            return
        if self._sheet is None or not self._sheet.lies_on(canvas):
            self.hide()
            self._sheet = _Sheet(canvas)
        self._sheet.lay(pixels, self._box, transform)

    def hide(self) -> None:
        """Take the sheet away."""
        if self._sheet is not None:
            self._sheet.take_away()
            self._sheet = None


class _Sheet(QtWidgets.QWidget):
    """A transparent widget as large as the canvas below it."""

    def __init__(self, canvas: QtWidgets.QWidget) -> None:
        super().__init__(canvas)
        self.setObjectName("underpaint_overlay")
        self.setAttribute(QtCore.Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(QtCore.Qt.WidgetAttribute.WA_NoSystemBackground)
        self.pixels: KritaPixels = None
        self._picture = QtGui.QImage()
        self._place = QtCore.QRectF()
        self._transform = QtGui.QTransform()

    def lay(self, pixels: KritaPixels, box: Box, transform: QtGui.QTransform) -> None:
        if pixels is not self.pixels:
            self.pixels = pixels  # QImage does not own what it is made of.
            self._picture = QtGui.QImage(pixels, box.width, box.height, QtGui.QImage.Format.Format_ARGB32)
        self._place = QtCore.QRectF(*box)
        self._transform = transform
        self.setGeometry(self.parentWidget().rect())
        self.show()
        self.update()

    def lies_on(self, canvas: QtWidgets.QWidget) -> bool:
        try:
            return bool(self.parentWidget() == canvas)
        except RuntimeError:
            return False  # Its canvas was closed and took it along.

    def take_away(self) -> None:
        try:
            self.hide()
            self.deleteLater()
        except RuntimeError:
            pass  # As above.

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.RenderHint.SmoothPixmapTransform)
        painter.setTransform(self._transform)
        painter.drawImage(self._place, self._picture)
        painter.end()


def _canvas_widget() -> Optional[QtWidgets.QWidget]:
    area = Krita.instance().activeWindow().qwindow().findChild(QtWidgets.QMdiArea)
    page = area.currentSubWindow() if area is not None else None
    for widget in page.findChildren(QtWidgets.QWidget) if page is not None else ():
        if widget.metaObject().className() in CANVASES and widget.isVisible():
            return widget
    return None


def image_to_widget(view: Any, canvas: QtWidgets.QWidget) -> Optional[QtGui.QTransform]:
    """From pixels of the image to pixels of the canvas widget; None where Krita does not tell."""
    if hasattr(view, "flakeToCanvasTransform"):  # since Krita 5.2
        to_flake, invertible = view.flakeToImageTransform().inverted()
        return to_flake * view.flakeToCanvasTransform() if invertible else None
    state = view.canvas()
    if state.rotation() or state.mirror():
        return None
    zoom = state.zoomLevel() * POINTS_PER_INCH / view.document().resolution()
    scrolled = _scroll_position(canvas)
    return QtGui.QTransform.fromTranslate(-scrolled.x(), -scrolled.y()).scale(zoom, zoom)


def _scroll_position(canvas: QtWidgets.QWidget) -> QtCore.QPoint:
    parent = canvas.parentWidget()
    while parent is not None and not isinstance(parent, QtWidgets.QAbstractScrollArea):
        parent = parent.parentWidget()
    if parent is None:
        return QtCore.QPoint()
    return QtCore.QPoint(parent.horizontalScrollBar().value(), parent.verticalScrollBar().value())
