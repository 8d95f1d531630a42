"""Asks which server to use."""

from __future__ import annotations

from typing import Optional

from .qt import QtWidgets
from .settings import DEFAULT_SERVER, Settings, is_local, tidy

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
    token = _TokenEdit(settings)
    address.textChanged.connect(token.turn_to)
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


class _TokenEdit(QtWidgets.QLineEdit):
    """The token of one server; never that of another one, to whose owner it would be given away."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._tokens = settings.tokens
        self._server: Optional[str] = None
        self.setEchoMode(QtWidgets.QLineEdit.EchoMode.Password)
        self.turn_to(settings.server)

    def turn_to(self, address: str) -> None:
        """Show the token that was entered for `address`, or nothing; what is there stays if it is the same server."""
        server = tidy(address)
        if server != self._server:
            self._server = server
            self.setText(self._tokens.get(server, ""))
            self.setPlaceholderText("found by itself" if is_local(server) else "needed for another machine")


def _forgetting() -> QtWidgets.QCheckBox:
    """Without it, a server that got a new certificate could never be reached again."""
    forget = QtWidgets.QCheckBox("Forget the certificate that this server showed so far")
    forget.setObjectName("underpaint_forget")
    forget.setToolTip("For a server that got a new one; you are asked about that when it is connected to")
    return forget
