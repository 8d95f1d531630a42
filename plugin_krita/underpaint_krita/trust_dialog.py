"""Asks whether a server that nobody vouches for is the artist's own."""

from __future__ import annotations

from datetime import datetime, timezone
from urllib.parse import urlsplit

from .certificates import Certificate
from .qt import QtCore, QtGui, QtWidgets

QUESTION = (
    "Nobody known to this machine vouches for {host}. That is usual for a server of one's own; but it could also be "
    "somebody in between, who would then see your pictures and use your token."
)
COMPARE = (
    "The server wrote the fingerprint of its certificate into its log when it started. Read it there, or ask whoever "
    "runs the server, and trust this one only if all of it is the same:"
)
ONCE = "You are asked this once. If the server shows another certificate later, nothing will be sent to it."
WIDTH = 440
"""Pixels. On a small screen, Qt would rather cut words off than make a dialog higher; here each word counts."""


def ask_to_trust(server: str, certificate: Certificate, parent: QtWidgets.QWidget) -> bool:
    """Whether the artist trusts `server` (its address) with this certificate from now on."""
    return bool(TrustDialog(server, certificate, parent).exec() == QtWidgets.QDialog.DialogCode.Accepted)


class TrustDialog(QtWidgets.QDialog):
    """The question. Return and Escape both mean no: a yes is pressed on purpose."""

    def __init__(self, server: str, certificate: Certificate, parent: QtWidgets.QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Is this your server?")
        self.setObjectName("underpaint_trust")
        column = QtWidgets.QVBoxLayout(self)
        column.addWidget(_words(QUESTION.format(host=urlsplit(server).netloc)))
        column.addWidget(_words(COMPARE))
        column.addWidget(_fingerprint(certificate))
        column.addWidget(_words(_about(certificate, datetime.now(timezone.utc))))
        column.addWidget(_words(ONCE))
        column.addWidget(self._buttons())

    def _buttons(self) -> QtWidgets.QDialogButtonBox:
        roles = QtWidgets.QDialogButtonBox.ButtonRole
        buttons = QtWidgets.QDialogButtonBox()
        trust = buttons.addButton("It is mine: trust it", roles.AcceptRole)
        refuse = buttons.addButton("Do not connect", roles.RejectRole)
        trust.setObjectName("underpaint_trust_yes")
        refuse.setObjectName("underpaint_trust_no")
        trust.setAutoDefault(False)
        refuse.setDefault(True)
        refuse.setFocus()
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        return buttons


def _fingerprint(certificate: Certificate) -> QtWidgets.QLabel:
    label = _words(certificate.groups)
    label.setObjectName("underpaint_fingerprint")
    label.setFont(QtGui.QFontDatabase.systemFont(QtGui.QFontDatabase.SystemFont.FixedFont))
    label.setMinimumHeight(label.heightForWidth(WIDTH))
    return label


def _about(certificate: Certificate, now: datetime) -> str:
    """What else is known, of which a stranger could have written everything."""
    name = f"It says that it is “{certificate.subject}”. " if certificate.subject else ""
    end = certificate.not_after
    if end is None:
        return f"{name}Why it is not trusted: {certificate.problem}."
    expiry = "It expired on" if end < now else "It holds until"
    return f"{name}{expiry} {end:%d %B %Y}. Why it is not trusted: {certificate.problem}."


def _words(text: str) -> QtWidgets.QLabel:
    label = QtWidgets.QLabel()
    label.setTextFormat(QtCore.Qt.TextFormat.PlainText)  # part of it is a stranger's
    label.setTextInteractionFlags(QtCore.Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setText(text)
    label.setWordWrap(True)
    label.setMinimumSize(WIDTH, label.heightForWidth(WIDTH))
    return label
