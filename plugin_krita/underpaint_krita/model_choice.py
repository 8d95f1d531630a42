"""The list of models: those that are ready first, then those that can be fetched, and those that cannot run there."""

from __future__ import annotations

from typing import List, Optional, Sequence

from . import sentences
from ._vendor.underpaint_protocol.messages import Model
from .qt import QtCore, QtGui, QtWidgets
from .sentence_line import pale

ORDER = ("ready", "absent", "unfit")
"""States in the order in which they are listed."""


class ModelChoice(QtWidgets.QComboBox):
    """One of the daemon's models. What has to be fetched is pale; what cannot run is slanted, and cannot be chosen."""

    chosen_changed = QtCore.pyqtSignal()
    """Another model is chosen."""

    def __init__(self) -> None:
        super().__init__()
        self._models: List[Model] = []
        self.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToContentsOnFirstShow)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Ignored, QtWidgets.QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Model")
        self.currentIndexChanged.connect(self._on_index)

    @property
    def chosen(self) -> Optional[Model]:
        """The model that is chosen; None while there is none."""
        return self.named(self.currentData())

    def named(self, model: Optional[str]) -> Optional[Model]:
        """The model of this id."""
        return next((known for known in self._models if known.id == model), None)

    def offer(self, models: Sequence[Model]) -> None:
        """List `models`, and keep the one that was chosen if it is still there."""
        ordered = sorted(models, key=lambda model: ORDER.index(model.state))
        if ordered == self._models:
            return
        before = self.currentData()
        self._models = ordered
        self.blockSignals(True)
        self.clear()
        for model in ordered:
            self._add(model)
        self.setCurrentIndex(max(0, self.findData(before)))
        self.blockSignals(False)
        self._say_about()
        if self.currentData() != before:
            self.chosen_changed.emit()

    def showPopup(self) -> None:
        """Open the list, wide enough for what it says of sizes and licences."""
        scroll_bar = self.style().pixelMetric(QtWidgets.QStyle.PixelMetric.PM_ScrollBarExtent)
        self.view().setMinimumWidth(self.view().sizeHintForColumn(0) + scroll_bar)
        super().showPopup()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        """Of the model that is chosen only the name: there is no room for more while the list is closed."""
        option = QtWidgets.QStyleOptionComboBox()
        self.initStyleOption(option)
        style, control = self.style(), QtWidgets.QStyle
        if self.chosen is not None:
            part = control.SubControl.SC_ComboBoxEditField
            room = style.subControlRect(control.ComplexControl.CC_ComboBox, option, part, self).width()
            elision = QtCore.Qt.TextElideMode.ElideRight
            option.currentText = self.fontMetrics().elidedText(self.chosen.name, elision, room)
        painter = QtWidgets.QStylePainter(self)
        painter.drawComplexControl(control.ComplexControl.CC_ComboBox, option)
        painter.drawControl(control.ControlElement.CE_ComboBoxLabel, option)

    def _add(self, model: Model) -> None:
        self.addItem(sentences.in_the_list(model), model.id)
        row, role = self.count() - 1, QtCore.Qt.ItemDataRole
        self.setItemData(row, sentences.about(model), role.ToolTipRole)
        if model.state != "ready":
            self.setItemData(row, QtGui.QBrush(pale(self.palette())), role.ForegroundRole)
        if model.state == "unfit":  # in the colour of what is disabled nobody could read why
            font = QtGui.QFont(self.font())
            font.setItalic(True)
            self.setItemData(row, font, role.FontRole)
            self.model().item(row).setEnabled(False)

    def _on_index(self) -> None:
        self._say_about()
        self.chosen_changed.emit()

    def _say_about(self) -> None:
        self.setToolTip(sentences.about(self.chosen) if self.chosen is not None else "")
