"""The artist's presses: whether there were any in the meantime, and what has to be put right before each of them.

Krita marks a document as modified some time after a layer was added or removed, and does not say why. What it does by
itself may be taken back; what the artist does may not, or Krita would close the document without asking to save it.
It makes a new layer the active one some time after it was added, too, and a stroke that begins then must not go there.
"""

from __future__ import annotations

from typing import Callable, Optional

from .qt import QtCore, QtWidgets

PRESSES = (
    QtCore.QEvent.Type.MouseButtonPress,
    QtCore.QEvent.Type.TabletPress,
    QtCore.QEvent.Type.TouchBegin,
    QtCore.QEvent.Type.KeyPress,
    QtCore.QEvent.Type.Shortcut,
)


class Attention(QtCore.QObject):
    """Watches pen, mouse and keyboard in all of Krita, from its making until `end`."""

    def __init__(self, before_press: Optional[Callable[[], object]] = None) -> None:
        """`before_press` is called at every press, before Krita hears of it. It must not raise."""
        super().__init__()
        self._before_press = before_press
        self.taken = False
        """Whether anything was pressed since."""
        QtWidgets.QApplication.instance().installEventFilter(self)

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:
        if event.type() in PRESSES:
            self.taken = True
            if self._before_press is not None:
                self._before_press()
        return False

    def end(self) -> None:
        """Stop watching; twice does no harm."""
        QtWidgets.QApplication.instance().removeEventFilter(self)
