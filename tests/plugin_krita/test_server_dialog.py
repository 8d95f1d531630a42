"""The question which server to use, in the Qt that Krita has, without Krita."""

from __future__ import annotations

import pytest

from .conftest import Facts, Told

SCRIPT = """
import json
from underpaint_krita.qt import QtCore, QtWidgets
from underpaint_krita.server_dialog import ask_for_server
from underpaint_krita.settings import DEFAULT_SERVER, Settings

application = QtWidgets.QApplication(["server"])
window = QtWidgets.QWidget()
facts = {}
FAR, OTHER = "wss://box.example:8738", "wss://other.example"

def ask(settings, *entered):
    # What is shown after each of the addresses was typed, and the settings that come of them.
    shown = []
    def enter():
        dialog = application.activeModalWidget()
        address, token = dialog.findChildren(QtWidgets.QLineEdit)
        shown.append([token.text(), token.placeholderText()])
        for text in entered:
            address.clear()
            for end in range(len(text) + 1):  # as it is typed
                address.setText(text[:end])
            shown.append([token.text(), token.placeholderText()])
        dialog.accept()
    QtCore.QTimer.singleShot(0, enter)
    return shown, ask_for_server(settings, window)

known = Settings(FAR, {FAR: "secret", OTHER: "another"})
shown, chosen = ask(known, DEFAULT_SERVER)
facts["home"] = [shown, chosen.server, dict(chosen.tokens)]
shown, chosen = ask(known, "ws://127.0.0.1:8739", OTHER + "/ ", "")
facts["others"] = [shown, chosen.server, dict(chosen.tokens)]
shown, chosen = ask(known, OTHER, FAR)
facts["back"] = [shown, chosen.server, dict(chosen.tokens)]
shown, chosen = ask(known)
facts["unchanged"] = [shown, chosen == known]
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(told_by: Told) -> Facts:
    """What the dialog showed and what came of it."""
    return told_by(SCRIPT)


def test_a_token_stays_with_its_server(facts: Facts) -> None:
    """With another address the field holds what was entered for that one, or nothing, and so do the settings."""
    shown, server, tokens = facts["home"]
    assert [token for token, _ in shown] == ["secret", ""]
    assert (server, tokens) == (
        "ws://127.0.0.1:8738",
        {"wss://box.example:8738": "secret", "wss://other.example": "another"},
    )
    shown, server, tokens = facts["others"]
    assert [token for token, _ in shown] == ["secret", "", "another", ""]
    assert (server, "another" in tokens.values(), len(tokens)) == ("ws://127.0.0.1:8738", True, 2)


def test_a_token_that_was_entered_comes_back(facts: Facts) -> None:
    """Whoever goes to another address and back has lost nothing."""
    shown, server, tokens = facts["back"]
    assert [token for token, _ in shown] == ["secret", "another", "secret"]
    assert (server, tokens["wss://box.example:8738"]) == ("wss://box.example:8738", "secret")
    assert facts["unchanged"][1]


def test_only_this_machines_token_is_found_by_itself(facts: Facts) -> None:
    """The empty field of another machine does not promise it."""
    (_, away), (_, home) = facts["home"][0]
    assert (away, home) == ("needed for another machine", "found by itself")
