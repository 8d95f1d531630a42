"""The question about a certificate, in the Qt that Krita has, without Krita."""

from __future__ import annotations

import pytest

from .conftest import Facts, Told

SCRIPT = """
import json
from datetime import datetime, timezone
from underpaint_krita.certificates import Certificate
from underpaint_krita.qt import QtCore, QtGui, QtWidgets
from underpaint_krita.server_dialog import ask_for_server
from underpaint_krita.settings import Settings
from underpaint_krita.trust_dialog import ask_to_trust

application = QtWidgets.QApplication(["trust"])
window = QtWidgets.QWidget()
facts = {}
SERVER = "wss://box.example:8738"
FINGERPRINT = "0123456789abcdef" * 4

def during(action, ask):
    # `action` gets the dialog that `ask` opens.
    QtCore.QTimer.singleShot(0, lambda: action(application.activeModalWidget()))
    return ask()

def press(name):
    return lambda dialog: dialog.findChild(QtWidgets.QPushButton, name).click()

def key(which):
    def press_key(dialog):
        event = QtGui.QKeyEvent(QtCore.QEvent.Type.KeyPress, which, QtCore.Qt.KeyboardModifier.NoModifier)
        application.sendEvent(dialog, event)
    return press_key

def read(dialog):
    facts["words"] = "\\n".join(label.text() for label in dialog.findChildren(QtWidgets.QLabel))
    formats = {label.textFormat() for label in dialog.findChildren(QtWidgets.QLabel)}
    facts["plain"] = formats == {QtCore.Qt.TextFormat.PlainText}
    dialog.reject()

def trust(action, end=datetime(2199, 1, 31, tzinfo=timezone.utc), name="<b>box</b>"):
    shown = Certificate(FINGERPRINT, name, end, False, "self-signed certificate")
    return during(action, lambda: ask_to_trust(SERVER, shown, window))

facts["yes"] = trust(press("underpaint_trust_yes"))
facts["no"] = trust(press("underpaint_trust_no"))
facts["return"] = trust(key(QtCore.Qt.Key.Key_Return))
facts["escape"] = trust(key(QtCore.Qt.Key.Key_Escape))
trust(read, datetime(2020, 1, 31, tzinfo=timezone.utc))
facts["expired"] = facts["words"]
trust(read, None, "")
facts["bare"] = facts["words"]
trust(read)

def forget(dialog):
    dialog.findChild(QtWidgets.QCheckBox, "underpaint_forget").setChecked(True)
    dialog.accept()

def look(dialog):
    facts["nothing to forget"] = dialog.findChild(QtWidgets.QCheckBox, "underpaint_forget") is None
    dialog.accept()

pinned = Settings(SERVER).with_pin(SERVER, FINGERPRINT)
facts["kept"] = during(lambda dialog: dialog.accept(), lambda: ask_for_server(pinned, window)).pin()
facts["forgotten"] = during(forget, lambda: ask_for_server(pinned, window)).pin()
during(look, lambda: ask_for_server(Settings(SERVER), window))
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(told_by: Told) -> Facts:
    """What the dialogs said and did."""
    return told_by(SCRIPT)


def test_only_a_yes_is_a_yes(facts: Facts) -> None:
    """Who presses Return without reading trusts nobody."""
    assert [facts[answer] for answer in ("yes", "no", "return", "escape")] == [True, False, False, False]


def test_the_question_says_what_to_compare(facts: Facts) -> None:
    """The server, its fingerprint in groups, and why it is not trusted."""
    assert "vouches for box.example:8738." in facts["words"]
    assert "\n".join(["0123 4567 89AB CDEF"] * 4) in facts["words"]
    assert "It holds until 31 January 2199. Why it is not trusted: self-signed certificate." in facts["words"]
    assert "It expired on 31 January 2020." in facts["expired"]
    assert "It says" not in facts["bare"]


def test_a_strangers_words_are_no_markup(facts: Facts) -> None:
    """The name in the certificate is shown as it is."""
    assert "“<b>box</b>”" in facts["words"]
    assert facts["plain"]


def test_a_certificate_can_be_forgotten_where_the_address_is(facts: Facts) -> None:
    """Only where there is one, and only if that is asked for."""
    assert facts["kept"] == "0123456789abcdef" * 4
    assert facts["forgotten"] is None
    assert facts["nothing to forget"]
