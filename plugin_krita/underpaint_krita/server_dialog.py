"""Asks which server to use."""

from __future__ import annotations

from typing import Optional

from .qt import QtWidgets
from .settings import DEFAULT_SERVER, Settings

ABOUT_TOKENS = (
    "On this machine the token is found by itself. For another machine, enter the one that you were given for it, "
    "or copy it from the file “token” there if it is yours. It is sent to that server only."
)


def ask_for_server(settings: Settings, parent: QtWidgets.QWidget) -> Optional[Settings]:
    """The settings with the server that the artist entered; None if the dialog was cancelled."""
    dialog = QtWidgets.QDialog(parent)
    dialog.setWindowTitle("Underpaint's server")
    address = QtWidgets.QLineEdit(settings.server)
    address.setPlaceholderText(DEFAULT_SERVER)
    address.setMinimumWidth(320)
    token = QtWidgets.QLineEdit(settings.tokens.get(settings.server, ""))
    token.setEchoMode(QtWidgets.QLineEdit.EchoMode.Password)
    token.setPlaceholderText("found by itself")
    about = QtWidgets.QLabel(ABOUT_TOKENS)
    about.setWordWrap(True)
    choice = QtWidgets.QDialogButtonBox.StandardButton
    buttons = QtWidgets.QDialogButtonBox(choice.Ok | choice.Cancel)
    buttons.accepted.connect(dialog.accept)
    buttons.rejected.connect(dialog.reject)
    form = QtWidgets.QFormLayout(dialog)
    form.addRow("Address", address)
    form.addRow("Token", token)
    form.addRow(about)
    forget = _forgetting()
    if settings.pin() is not None:
        form.addRow(forget)
    form.addRow(buttons)
    if dialog.exec() != QtWidgets.QDialog.DialogCode.Accepted:
        return None
    kept = settings.without_pin(settings.server) if forget.isChecked() else settings
    return kept.with_server(address.text(), token.text())


def _forgetting() -> QtWidgets.QCheckBox:
    """Without it, a server that got a new certificate could never be reached again."""
    forget = QtWidgets.QCheckBox("Forget the certificate that this server showed so far")
    forget.setObjectName("underpaint_forget")
    forget.setToolTip("For a server that got a new one; you are asked about that when it is connected to")
    return forget
