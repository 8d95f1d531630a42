"""Whether the artist did anything in the meantime.

Krita marks a document as modified some time after a layer was added or removed, and does not say why. What it does by
itself may be taken back; what the artist does may not, or Krita would close the document without asking to save it.
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

    def __init__(self, first: Optional[Callable[[], None]] = None) -> None:
        """`first` is called at every press, before Krita hears of it."""
        super().__init__()
        self._first = first
        self.taken = False
        """Whether anything was pressed since."""
        QtWidgets.QApplication.instance().installEventFilter(self)

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:
        if event.type() in PRESSES:
            self.taken = True
            if self._first is not None:
                self._first()
        return False

    def end(self) -> None:
        """Stop watching; twice does no harm."""
        QtWidgets.QApplication.instance().removeEventFilter(self)
