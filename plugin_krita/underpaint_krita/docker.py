"""The docker as Krita knows it."""

from __future__ import annotations

from krita import Canvas, DockWidget, Krita

from .panel import Panel
from .studio import Studio

TITLE = "Underpaint"


class UnderpaintDocker(DockWidget):
    """Holds the panel; Krita makes one for each of its windows."""

    def __init__(self) -> None:
        super().__init__()
        self.setWindowTitle(TITLE)
        panel = Panel()
        self._studio = studio = Studio(panel)
        self.setWidget(panel)
        panel.destroyed.connect(lambda: studio.leave())  # It holds the studio, which the docker lets go of before.
        notifier = Krita.instance().notifier()
        notifier.setActive(True)
        notifier.applicationClosing.connect(self._studio.close)

    def canvasChanged(self, canvas: Canvas) -> None:
        """Krita demands this method. The picture is looked up when Generate is pressed."""
