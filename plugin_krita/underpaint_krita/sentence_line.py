"""A sentence in the docker, with what helps below it."""

from __future__ import annotations

import re
from typing import Match, Optional

from .qt import QtCore, QtGui, QtWidgets

ADDRESS = re.compile(r"https://[A-Za-z0-9./_~%-]*[A-Za-z0-9/_~-]")
"""Addresses that a browser is opened with: of encrypted pages, and with nothing in them that is markup."""


class SentenceLine(QtWidgets.QLabel):
    """A sentence, and below it, paler, what helps. A click on an address opens the browser."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextFormat(QtCore.Qt.TextFormat.RichText)
        flags = QtCore.Qt.TextInteractionFlag
        self.setTextInteractionFlags(flags.TextSelectableByMouse | flags.LinksAccessibleByMouse)
        self.setOpenExternalLinks(True)

    def setText(self, text: str) -> None:
        super().setText(text)
        self._keep_whole()

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        self._keep_whole()

    def _keep_whole(self) -> None:
        """Ask for all lines that the text takes at this width; a layout would cut what wraps more often than usual."""
        self.setMinimumHeight(0)  # Or the label would never ask for less than it did for a longer text.
        self.setMinimumHeight(self.heightForWidth(self.width()) if self.text() else 0)

    def say(self, sentence: str, hint: Optional[str] = None) -> None:
        """Show a sentence and a hint, as they are: a daemon's words are not markup."""
        below = f'<br><span style="color:{pale(self.palette()).name()}">{self._shown(hint)}</span>' if hint else ""
        self.setText(self._shown(sentence) + below)
        self.setAccessibleName(f"{sentence} {hint or ''}".strip())

    def _shown(self, text: str) -> str:
        """The text with its addresses in the theme's own colour for links, which rich text does not ask for."""
        colour = self.palette().color(QtGui.QPalette.ColorRole.Link).name()

        def link(found: Match[str]) -> str:
            return f'<a href="{found.group()}" style="color:{colour}">{found.group()}</a>'

        return ADDRESS.sub(link, _plain(text))


def pale(palette: QtGui.QPalette) -> QtGui.QColor:
    """Two parts of the text's colour and one of the ground's: legible in dark themes and in bright ones."""
    ink = palette.color(QtGui.QPalette.ColorRole.WindowText)
    ground = palette.color(QtGui.QPalette.ColorRole.Window)
    return QtGui.QColor(*[(2 * a + b) // 3 for a, b in zip(ink.getRgb()[:3], ground.getRgb()[:3])])


def _plain(text: str) -> str:
    """`text` as it is, in a label that reads HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
