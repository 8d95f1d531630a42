"""The widgets of the docker, and nothing else: they say what the artist wants and show what they are told."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Dict, Optional, Sequence

from . import sentences
from ._vendor.underpaint_protocol.errors import ErrorInfo
from ._vendor.underpaint_protocol.messages import Model, Pulling
from ._vendor.underpaint_protocol.pulls import is_over
from .fetch_box import BAR, FetchBox
from .model_choice import ModelChoice
from .qt import QtCore, QtGui, QtWidgets
from .sentence_line import SentenceLine

LARGEST_SEED = 2**63 - 1
RANDOM_SEEDS = 2**32
MARGIN = 6
SHORT_LICENCE = 20
"""Characters of a licence that fit into a button; the sentence above it has all of them."""


@dataclass(frozen=True)
class Wishes:
    """What the artist asked for. `model` is empty while no model is known; `steps` is 0 for the model's own number."""

    prompt: str
    negative_prompt: str
    model: str
    strength: float
    steps: int
    seed: int


class Panel(QtWidgets.QWidget):
    """Prompt, choices, buttons, progress and one line for state and errors."""

    generate = QtCore.pyqtSignal()
    cancel = QtCore.pyqtSignal()
    fetch = QtCore.pyqtSignal(str)
    stop_fetching = QtCore.pyqtSignal(str)
    start_daemon = QtCore.pyqtSignal()
    choose_server = QtCore.pyqtSignal()
    shown = QtCore.pyqtSignal()

    def __init__(self) -> None:
        super().__init__()
        self._busy = False
        self._pulls: Dict[str, Pulling] = {}
        self._problems: Dict[str, ErrorInfo] = {}
        self.prompt = PromptEdit("What should be there?", lines=4)
        self.negative_prompt = PromptEdit("What should not?", lines=2)
        self.model = ModelChoice()
        self._patience = _WheelPatience(self)
        self.strength = _Amount(1, 100, 100, " %")
        self.steps = _Amount(1, 100, 20)
        self.seed = _SeedEdit()
        self.generate_button = _button("Generate", "generate", "Paint into the selection (Ctrl+Return in the prompt)")
        self.cancel_button = _button("Cancel", "cancel", "Stop, and leave the picture as it was")
        self.fetch_button = _button("Fetch", "fetch", "Bring this model to the machine on which the daemon runs")
        self.fetch_box = FetchBox()
        self.progress = QtWidgets.QProgressBar()
        self.state = SentenceLine()
        self.notice = SentenceLine()
        self.start_button = _button("Start Underpaint", "start", "Start the daemon on this machine")
        self.server_button = _server_button()
        for widget in (self.model, *self.strength.parts, *self.steps.parts):
            self._patience.spare(widget)
        self._name_widgets()
        self._lay_out()
        self._connect()
        self.set_busy(False)

    def wishes(self) -> Wishes:
        """What the widgets say now. A random seed is drawn, and shown."""
        return Wishes(
            prompt=self.prompt.toPlainText().strip(),
            negative_prompt=self.negative_prompt.toPlainText().strip(),
            model=self.model.currentData() or "",
            strength=self.strength.value() / 100,
            steps=self.steps.value() if self.model.count() else 0,
            seed=self.seed.draw(),
        )

    def show_models(self, models: Sequence[Model]) -> None:
        """Offer `models`, and keep the one that was chosen if it is still there."""
        self.model.offer(models)
        self._show_fetching()

    def forget_pulls(self) -> None:
        """Whatever was on its way: the daemon says anew how far it is."""
        self._pulls.clear()
        self._show_fetching()

    def show_pulling(self, pulling: Pulling) -> None:
        """Show how far a model is that is being fetched, and how that ended."""
        model = self.model.named(pulling.model)
        self._pulls.pop(pulling.model, None)
        self._problems.pop(pulling.model, None)
        if not is_over(pulling):
            self._pulls[pulling.model] = pulling
        elif pulling.error is not None:
            self._problems[pulling.model] = pulling.error
        elif not pulling.stopped and model is not None:
            self.show_notice(sentences.fetched(model.name))
        self._show_fetching()

    def show_fetch_problem(self, model: str, error: ErrorInfo) -> None:
        """Say why a model is not being fetched."""
        self._problems[model] = error
        self._show_fetching()

    def show_state(self, text: str, offer_start: bool = False) -> None:
        """Say how things are; with `offer_start`, a button that starts the daemon."""
        self.state.say(text)
        self.start_button.setVisible(offer_start)

    def show_notice(self, text: str) -> None:
        """Say something that stays until `clear_notices`, below what was said so before."""
        self.notice.say(" ".join(filter(None, [self.notice.accessibleName(), text])))
        self.notice.show()

    def clear_notices(self) -> None:
        """Take all notices away."""
        self.notice.say("")
        self.notice.hide()

    def show_error(self, error: ErrorInfo, offer_start: bool = False) -> None:
        """Say what went wrong and what helps; with `offer_start`, a button that starts the daemon."""
        self.state.say(error.message, error.hint)
        self.start_button.setVisible(offer_start)

    def show_progress(self, fraction: float) -> None:
        """Move the bar; 0 is empty, 1 is full."""
        # QProgressBar repaints at once, and with it the whole window, canvas included: 50 ms and more with software
        # rendering. Without updates it cannot; switching them on again asks for a repaint when there is time.
        self.progress.setUpdatesEnabled(False)
        self.progress.setValue(round(BAR * fraction))
        self.progress.setUpdatesEnabled(True)

    def set_busy(self, busy: bool) -> None:
        """Offer Cancel while something is being painted, and Generate otherwise."""
        self._busy = busy
        self.cancel_button.setEnabled(busy)
        self._show_fetching()
        if not busy:
            self.show_progress(0)

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        super().showEvent(event)
        self.shown.emit()

    def _adopt_model(self) -> None:
        model = self.model.chosen
        if model is not None:
            self.steps.set_value(model.default_steps)
        self._show_fetching()

    def _show_fetching(self) -> None:
        """Of the model that is chosen if it has to be fetched, else of what is on its way beside it."""
        model = self.model.chosen
        absent = model is not None and model.state == "absent"
        pulls = {model.id: self._pulls[model.id]} if model is not None and model.id in self._pulls else self._pulls
        pulling = next(iter(pulls.values()), None)
        if model is not None and absent and model.id not in self._pulls:
            problem = self._problems.get(model.id)
            if problem is None:
                self.fetch_box.show_offer(model)
            else:
                self.fetch_box.show_problem(problem)
        elif pulling is not None:
            named = self.model.named(pulling.model)
            self.fetch_box.show_pulling(named.name if named is not None else pulling.model, pulling)
        else:
            self.fetch_box.hide()
        self._show_buttons(model, absent)

    def _show_buttons(self, model: Optional[Model], absent: bool) -> None:
        """Generate where the model can paint, and Fetch in its place where it has to come first."""
        self.generate_button.setEnabled(not self._busy and not absent)
        self.generate_button.setVisible(self._busy or not absent)
        self.cancel_button.setVisible(self._busy or not absent)
        self.fetch_button.setVisible(absent and not self._busy)
        if model is not None and absent:
            coming = model.id in self._pulls
            self.fetch_button.setEnabled(not coming)
            self.fetch_button.setText("Fetching…" if coming else _fetch_words(model))

    def _on_fetch(self) -> None:
        model = self.model.chosen
        if model is not None:
            self._problems.pop(model.id, None)
            self.fetch.emit(model.id)

    def _name_widgets(self) -> None:
        names = ("prompt", "negative_prompt", "model", "strength", "steps", "seed", "progress", "state", "notice")
        for name in names:
            getattr(self, name).setObjectName(f"underpaint_{name}")

    def _lay_out(self) -> None:
        self.progress.setRange(0, BAR)
        self.progress.setTextVisible(False)
        self.progress.setMaximumHeight(6)
        self.start_button.hide()
        self.notice.hide()
        self.fetch_box.hide()
        self.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)  # Krita takes away those of the layout.
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        # First, and not among what scrolls: which model it is decides between Generate and Fetch.
        column.addLayout(_row(self.model, self.server_button))
        column.addWidget(_scrolling(self._choices()), stretch=1)
        for widget in (self.fetch_box, self.notice, self.state, self.start_button, self.progress):
            column.addWidget(widget)
        # Last, so that they stay where they are when a sentence gets longer: nobody should press what has just moved.
        column.addLayout(_row(self.generate_button, self.cancel_button, self.fetch_button))

    def _choices(self) -> QtWidgets.QWidget:
        """What scrolls when there is little room; the buttons never do."""
        form = QtWidgets.QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Strength", self.strength)
        form.addRow("Steps", self.steps)
        form.addRow("Seed", self.seed)
        choices = QtWidgets.QWidget()
        column = QtWidgets.QVBoxLayout(choices)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.prompt)
        column.addWidget(self.negative_prompt)
        column.addLayout(form)
        column.addStretch()
        return choices

    def _connect(self) -> None:
        self.prompt.submitted.connect(self.generate_button.click)
        self.negative_prompt.submitted.connect(self.generate_button.click)
        self.generate_button.clicked.connect(self.generate)
        self.cancel_button.clicked.connect(self.cancel)
        self.start_button.clicked.connect(self.start_daemon)
        self.server_button.clicked.connect(self.choose_server)
        self.fetch_button.clicked.connect(self._on_fetch)
        self.fetch_box.stop.connect(self.stop_fetching)
        self.model.chosen_changed.connect(self._adopt_model)


class PromptEdit(QtWidgets.QPlainTextEdit):
    """Text of a few lines; Ctrl+Return submits it."""

    submitted = QtCore.pyqtSignal()

    def __init__(self, placeholder: str, lines: int) -> None:
        super().__init__()
        self.setPlaceholderText(placeholder)
        self.setTabChangesFocus(True)
        self.setFixedHeight(self.fontMetrics().lineSpacing() * lines + 2 * self.frameWidth() + 8)

    def event(self, event: QtCore.QEvent) -> bool:
        # Otherwise Krita opens its own Search Actions on Ctrl+Return.
        if event.type() == QtCore.QEvent.Type.ShortcutOverride and _is_submit(event):
            event.accept()
            return True
        return bool(super().event(event))

    def keyPressEvent(self, event: QtGui.QKeyEvent) -> None:
        if _is_submit(event):
            event.accept()
            self.submitted.emit()
        else:
            super().keyPressEvent(event)


class _WheelPatience(QtCore.QObject):
    """Keeps the wheel, which scrolls the docker, from changing a value that it passes over."""

    def spare(self, widget: QtWidgets.QWidget) -> None:
        """Let `widget` hear of the wheel only once it was chosen with a click or the keyboard."""
        widget.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:
        if event.type() == QtCore.QEvent.Type.Wheel and not watched.hasFocus():
            event.ignore()
            return True
        return False


class _Amount(QtWidgets.QWidget):
    """A slider and a number that move together."""

    def __init__(self, low: int, high: int, value: int, suffix: str = "") -> None:
        super().__init__()
        self.slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self.number = QtWidgets.QSpinBox()
        self.number.setSuffix(suffix)
        for widget in (self.slider, self.number):
            widget.setRange(low, high)
            widget.setValue(value)
        self.slider.valueChanged.connect(self.number.setValue)
        self.number.valueChanged.connect(self.slider.setValue)
        self.parts = (self.slider, self.number)
        row = _row(*self.parts)
        self.setLayout(row)

    def value(self) -> int:
        return int(self.number.value())

    def set_value(self, value: int) -> None:
        self.number.setMaximum(max(value, self.number.maximum()))
        self.slider.setMaximum(self.number.maximum())
        self.number.setValue(value)


class _SeedEdit(QtWidgets.QWidget):
    """The number that a picture starts from: a new one each time, or one that is kept.

    A line of text, because Qt's own number widget stops at 31 bits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = QtWidgets.QLineEdit("0")
        digits = QtCore.QRegularExpression(r"\d{1,19}")
        self.number.setValidator(QtGui.QRegularExpressionValidator(digits, self.number))
        self.random = QtWidgets.QCheckBox("Random")
        self.random.setToolTip("Draw a new seed for every picture")
        self.random.toggled.connect(self.number.setDisabled)
        self.random.setChecked(True)
        self.setLayout(_row(self.number, self.random))

    def draw(self) -> int:
        """The seed for the next picture."""
        if self.random.isChecked():
            self.number.setText(str(secrets.randbelow(RANDOM_SEEDS)))
        return min(int(self.number.text() or "0"), LARGEST_SEED)


def _button(text: str, name: str, tip: str) -> QtWidgets.QPushButton:
    button = QtWidgets.QPushButton(text)
    button.setObjectName(f"underpaint_{name}")
    button.setToolTip(tip)
    return button


def _fetch_words(model: Model) -> str:
    size = f" {sentences.size(model.download)}" if model.download else ""
    return f"Fetch{size}" + (f" ({model.licence})" if 0 < len(model.licence) <= SHORT_LICENCE else "")


def _server_button() -> QtWidgets.QToolButton:
    button = QtWidgets.QToolButton()
    button.setObjectName("underpaint_server")
    button.setText("…")
    button.setToolTip("Choose the server")
    button.setAutoRaise(True)
    return button


def _scrolling(widget: QtWidgets.QWidget) -> QtWidgets.QScrollArea:
    area = QtWidgets.QScrollArea()
    area.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidgetResizable(True)
    area.setWidget(widget)
    return area


def _row(*widgets: QtWidgets.QWidget) -> QtWidgets.QHBoxLayout:
    row = QtWidgets.QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        row.addWidget(widget)
    return row


def _is_submit(event: QtGui.QKeyEvent) -> bool:
    returns = (QtCore.Qt.Key.Key_Return, QtCore.Qt.Key.Key_Enter)
    return event.key() in returns and event.modifiers() == QtCore.Qt.KeyboardModifier.ControlModifier
