"""What has to be fetched before it can paint, how far that is, and what went wrong with it."""

from __future__ import annotations

from typing import Optional

from . import sentences
from ._vendor.underpaint_protocol.errors import ErrorInfo
from ._vendor.underpaint_protocol.messages import Model, Pulling
from .qt import QtCore, QtWidgets
from .sentence_line import SentenceLine

BAR = 1000


class FetchBox(QtWidgets.QWidget):
    """A sentence, and while something is on its way a bar, and a button that stops it."""

    stop = QtCore.pyqtSignal(str)
    """Leave off fetching the model of this id."""

    def __init__(self) -> None:
        super().__init__()
        self._model: Optional[str] = None
        self.sentence = SentenceLine()
        self.sentence.setObjectName("underpaint_fetch_sentence")
        self.bar = QtWidgets.QProgressBar()
        self.bar.setObjectName("underpaint_fetch_progress")
        self.bar.setRange(0, BAR)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(6)
        self.stop_button = QtWidgets.QPushButton("Stop")
        self.stop_button.setObjectName("underpaint_stop")
        self.stop_button.setToolTip("Leave off. What came is kept, and the next time it goes on from there")
        self.stop_button.clicked.connect(self._on_stop)
        row = QtWidgets.QHBoxLayout()
        row.addWidget(self.bar, 1)
        row.addWidget(self.stop_button)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.sentence)
        column.addLayout(row)

    def show_offer(self, model: Model) -> None:
        """Say what fetching this model takes."""
        self._rest()
        self.sentence.say(sentences.has_to_be_fetched(model), sentences.to_accept_first(model))

    def show_problem(self, error: ErrorInfo) -> None:
        """Say why a model was not fetched, and what helps."""
        self._rest()
        self.sentence.say(error.message, error.hint)

    def show_pulling(self, name: str, pulling: Pulling) -> None:
        """Say how far the model called `name` is."""
        self._model = pulling.model
        self.sentence.say(sentences.pulling(name, pulling))
        self.bar.setUpdatesEnabled(False)  # as in Panel.show_progress: a repaint at once costs the whole window's
        self.bar.setValue(round(BAR * pulling.done / max(1, pulling.total)))
        self.bar.setUpdatesEnabled(True)
        self._show_moving(True)

    def _rest(self) -> None:
        self._model = None
        self._show_moving(False)

    def _show_moving(self, moving: bool) -> None:
        self.bar.setVisible(moving)
        self.stop_button.setVisible(moving)
        self.show()

    def _on_stop(self) -> None:
        if self._model is not None:
            self.stop.emit(self._model)
