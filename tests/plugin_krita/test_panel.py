"""The docker's widgets, in the Qt that Krita has, without Krita."""

from __future__ import annotations

import pytest

from .conftest import Facts, Told

SCRIPT = """
import json
from underpaint_krita.qt import QtCore, QtGui, QtWidgets
from underpaint_krita._vendor.underpaint_protocol.errors import describe
from underpaint_krita._vendor.underpaint_protocol.messages import Model
from underpaint_krita.panel import Panel

def model(name, steps):
    return Model(name, name, "family", ("inpaint",), ("ddim",), 16384, 8, steps, 3.0, "ddim")

def key(kind):
    modifiers = QtCore.Qt.KeyboardModifier.ControlModifier
    event = QtGui.QKeyEvent(getattr(QtCore.QEvent.Type, kind), QtCore.Qt.Key.Key_Return, modifiers)
    event.ignore()
    application.sendEvent(panel.prompt, event)
    return event.isAccepted()

application = QtWidgets.QApplication(["panel"])
panel, facts, pressed = Panel(), {}, []
panel.generate.connect(lambda: pressed.append(True))
panel.show()
facts["steps without a model"] = panel.wishes().steps
panel.show_models([model("one", 12), model("two", 33)])
facts["first"] = [panel.wishes().model, panel.wishes().steps]
panel.model.setCurrentIndex(1)
facts["second"] = [panel.wishes().model, panel.wishes().steps]
panel.steps.set_value(7)
panel.show_models([model("two", 33), model("one", 12)])
facts["moved"] = [panel.wishes().model, panel.wishes().steps]
panel.show_models([model("one", 12)])
facts["gone"] = [panel.wishes().model, panel.wishes().steps]
panel.steps.set_value(500)
facts["many steps"] = panel.wishes().steps
facts["random seeds"] = len({panel.wishes().seed for _ in range(20)})
panel.seed.random.setChecked(False)
panel.seed.number.setText("9223372036854775807")
facts["kept seeds"] = [panel.wishes().seed, panel.wishes().seed]
panel.seed.number.setText("9999999999999999999")
facts["largest seed"] = panel.wishes().seed
def wheel(widget):
    where, zero = QtCore.QPointF(2, 2), QtCore.QPoint(0, 0)
    none = QtCore.Qt.MouseButton.NoButton
    unmodified = QtCore.Qt.KeyboardModifier.NoModifier
    phase = QtCore.Qt.ScrollPhase.NoScrollPhase
    event = QtGui.QWheelEvent(where, where, zero, QtCore.QPoint(0, -120), none, unmodified, phase, False)
    application.sendEvent(widget, event)

before = [panel.steps.value(), panel.strength.value(), panel.model.currentIndex()]
for widget in (panel.steps.number, panel.steps.slider, panel.strength.slider, panel.strength.number, panel.model):
    widget.clearFocus()
    wheel(widget)
facts["wheel"] = [panel.steps.value(), panel.strength.value(), panel.model.currentIndex()] == before
panel.strength.slider.setValue(40)
facts["strength"] = [panel.wishes().strength, panel.strength.number.value()]
facts["Ctrl+Return"] = [key("ShortcutOverride"), key("KeyPress"), len(pressed)]
panel.set_busy(True)
facts["busy"] = [key("KeyPress") and len(pressed), panel.generate_button.isEnabled(), panel.cancel_button.isEnabled()]
panel.show_progress(0.5)
facts["progress"] = panel.progress.value() / panel.progress.maximum()
panel.set_busy(False)
facts["idle"] = [panel.progress.value(), panel.generate_button.isEnabled(), panel.cancel_button.isEnabled()]
panel.show_error(describe("unreachable", detail="<b>there</b>"), offer_start=True)
facts["error"] = [panel.state.accessibleName(), "<b>" in panel.state.text(), panel.start_button.isVisible()]
panel.show_state("Ready.")
facts["state"] = [panel.state.accessibleName(), panel.start_button.isVisible()]
panel.show_state("Trying again…", offer_start=True)
facts["state with a button"] = [panel.state.accessibleName(), panel.start_button.isVisible()]
facts["no notice"] = panel.notice.isVisible()
panel.show_notice("One is in a layer.")
panel.show_notice("One is in <a file>.")
facts["notices"] = [panel.notice.accessibleName(), "<a file>" in panel.notice.text(), panel.notice.isVisible()]
panel.show_state("Ready.")
facts["notices stay"] = panel.notice.isVisible()
panel.clear_notices()
facts["cleared"] = [panel.notice.accessibleName(), panel.notice.isVisible()]

def room():
    application.processEvents()
    return [panel.state.height(), panel.findChild(QtWidgets.QScrollArea).height()]

panel.resize(260, 900)
panel.show_state("Ready.")
facts["room"] = [room()]
panel.show_error(describe("certificate_changed", detail="box.example"))
facts["room"].append(room())
panel.show_state("Ready.")
facts["room"].append(room())
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(told_by: Told) -> Facts:
    """What the panel did."""
    return told_by(SCRIPT)


def test_a_model_brings_its_own_number_of_steps(facts: Facts) -> None:
    """Choosing a model sets what suits it; without one the number is left to the daemon."""
    assert facts["steps without a model"] == 0
    assert facts["first"] == ["one", 12]
    assert facts["second"] == ["two", 33]


def test_the_chosen_model_stays_chosen(facts: Facts) -> None:
    """When the daemon lists its models anew, choice and steps stay, unless the model is gone."""
    assert facts["moved"] == ["two", 7]
    assert facts["gone"] == ["one", 12]


def test_a_model_may_take_more_steps_than_the_slider_has(facts: Facts) -> None:
    """The slider grows."""
    assert facts["many steps"] == 500


def test_scrolling_over_the_docker_changes_nothing(facts: Facts) -> None:
    """The wheel turns a value only where somebody chose it first."""
    assert facts["wheel"]


def test_seeds_are_drawn_or_kept(facts: Facts) -> None:
    """Random draws a new one each time; otherwise it is the one in the field, up to 63 bits."""
    assert facts["random seeds"] > 15
    assert facts["kept seeds"] == [2**63 - 1, 2**63 - 1]
    assert facts["largest seed"] == 2**63 - 1


def test_strength_is_a_share(facts: Facts) -> None:
    """Slider and number agree; 40 % is 0.4."""
    assert facts["strength"] == [0.4, 40]


def test_ctrl_return_presses_generate(facts: Facts) -> None:
    """The prompt keeps the keys from Krita and presses the button; while it is off, nothing happens."""
    assert facts["Ctrl+Return"] == [True, True, 1]
    assert facts["busy"][0] == 1


def test_cancel_while_busy_and_generate_while_not(facts: Facts) -> None:
    """One of the two can be pressed; at rest the bar is empty."""
    assert facts["busy"][1:] == [False, True]
    assert facts["progress"] == 0.5
    assert facts["idle"] == [0, True, False]


def test_an_error_is_a_sentence_and_a_hint(facts: Facts) -> None:
    """What a daemon says is shown as it is, never as markup; the button comes and goes with the error."""
    text, markup, button = facts["error"]
    assert text.startswith("Underpaint's daemon is not running at <b>there</b>. Start it")
    assert (markup, button) == (False, True)
    assert facts["state"] == ["Ready.", False]


def test_a_daemon_can_be_started_while_the_docker_waits(facts: Facts) -> None:
    """Not only after an error."""
    assert facts["state with a button"] == ["Trying again…", True]


def test_notices_stay_until_they_are_cleared(facts: Facts) -> None:
    """One after the other, as they are, whatever the state says; without any there is no gap."""
    assert facts["no notice"] is False
    assert facts["notices"] == ["One is in a layer. One is in <a file>.", False, True]
    assert facts["notices stay"] is True
    assert facts["cleared"] == ["", False]


def test_a_long_message_leaves_no_gap(facts: Facts) -> None:
    """It takes the room that it needs from what scrolls, and gives it back."""
    before, meanwhile, after = facts["room"]
    assert meanwhile[0] > 3 * before[0]
    assert meanwhile[1] < before[1]
    assert after == before
