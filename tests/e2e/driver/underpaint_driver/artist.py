"""What an artist does in Krita: opens, selects, types, clicks, draws; by way of the X server, as a hand does."""

import math
import os
import re
import subprocess

from krita import Krita, Selection
from underpaint_krita.overlay import image_to_widget

try:
    from PyQt5.QtCore import QEventLoop, QPoint, QPointF, Qt, QTimer
    from PyQt5.QtWidgets import QAbstractItemView, QApplication, QDockWidget, QMdiArea, QWidget
except ImportError:
    from PyQt6.QtCore import QEventLoop, QPoint, QPointF, Qt, QTimer
    from PyQt6.QtWidgets import QAbstractItemView, QApplication, QDockWidget, QMdiArea, QWidget

CANVASES = ("KisOpenGLCanvas2", "KisQPainterCanvas")
WINDOW = (1280, 800)
HIDDEN = ("ArtisticColorSelector", "PresetDocker", "sharedtooldocker")


class Artist:
    """Sits before the Krita that the stage plays in. Methods that take time are generators, as scenarios are."""

    def __init__(self, stage, window=WINDOW):
        self.stage = stage
        self.size = window
        stage.witness = lambda: f"the docker says {self.state()!r}; the layers are {self._layers()}"
        self.krita = Krita.instance()
        self.looking = QTimer()

    # What is on the screen

    @property
    def window(self):
        return self.krita.activeWindow().qwindow()

    @property
    def docker(self):
        return next(dock for dock in self.window.findChildren(QDockWidget) if dock.objectName() == "underpaint")

    def widget(self, name):
        """A widget of Underpaint's docker."""
        return self.docker.findChild(QWidget, f"underpaint_{name}")

    def state(self):
        """The docker's line for state and errors, as a reader of the screen hears it."""
        return self.widget("state").accessibleName()

    def canvas(self):
        """The canvas of the picture in front."""
        page = self.window.findChild(QMdiArea).currentSubWindow()
        return next(w for w in page.findChildren(QWidget) if w.metaObject().className() in CANVASES and w.isVisible())

    def _layers(self):
        document = self.krita.activeDocument()
        return layers(document) if document is not None else None

    def overlay_is_visible(self):
        overlay = self.canvas().findChild(QWidget, "underpaint_overlay")
        return overlay is not None and overlay.isVisible()

    def overlay_pixels(self):
        """What the overlay shows: the bytes of a preview."""
        return bytes(self.canvas().findChild(QWidget, "underpaint_overlay").pixels)

    def to_image(self, x, y):
        """The pixel of the picture that lies at (x, y) of the canvas widget."""
        view = self.krita.activeWindow().activeView()
        back, _ = image_to_widget(view, self.canvas()).inverted()
        place = back.map(QPointF(x, y))
        return [int(place.x()), int(place.y())]

    def history(self):
        """The steps in Krita's undo history, from its own docker."""
        dock = next(dock for dock in self.window.findChildren(QDockWidget) if dock.objectName() == "History")
        model = dock.findChildren(QAbstractItemView)[0].model()
        return [model.data(model.index(row, 0)) for row in range(model.rowCount())]

    def tool(self):
        """The name of the tool in hand."""
        box = next(dock for dock in self.window.findChildren(QDockWidget) if dock.objectName() == "ToolBox")
        buttons = [b for b in box.findChildren(QWidget) if b.inherits("QToolButton") and b.isChecked()]
        return buttons[0].objectName() if buttons else ""

    # What an artist does

    def arrange(self):
        """Make the window as large as the tests need and give the docker room."""
        self.window.setGeometry(0, 0, *self.size)
        for dock in self.window.findChildren(QDockWidget):
            if dock.objectName() in HIDDEN and dock.isVisible():
                dock.hide()
        self.docker.show()
        self.docker.raise_()
        yield 0.3
        layers = next(dock for dock in self.window.findChildren(QDockWidget) if dock.objectName() == "KisLayerBox")
        self.window.resizeDocks([layers, self.docker], [190, 520], Qt.Orientation.Vertical)
        self.window.resizeDocks([self.docker], [300], Qt.Orientation.Horizontal)
        yield 0.3

    def open(self, path):
        """Open a picture in a view."""
        document = self.krita.openDocument(path)
        self.krita.activeWindow().addView(document)
        yield from self.stage.until(lambda: self.krita.activeDocument() == document, 30, "the picture to open")
        yield 1.0
        yield from self.arrange()  # Krita shows some dockers only with a picture.

    def new(self, width, height, model="RGBA", depth="U8"):
        """Make a new picture in a view."""
        document = self.krita.createDocument(width, height, "picture", model, depth, "", 72.0)
        self.krita.activeWindow().addView(document)
        yield from self.stage.until(lambda: self.krita.activeDocument() == document, 30, "the new picture")
        yield 1.0
        yield from self.arrange()

    def select_ellipse(self, x, y, width, height, feather):
        """Select an ellipse with a soft edge."""
        selection = Selection()
        selection.setPixelData(_ellipse(width, height), x, y, width, height)
        selection.feather(feather)
        self.krita.activeDocument().setSelection(selection)
        yield 0.2

    def select(self, x, y, width, height):
        """Select a rectangle."""
        selection = Selection()
        selection.select(x, y, width, height, 255)
        self.krita.activeDocument().setSelection(selection)
        yield 0.2

    def click(self, widget):
        """Click into the middle of what can be seen of a widget."""
        place = widget.mapToGlobal(widget.visibleRegion().boundingRect().center())
        yield from self.xdotool("mousemove", place.x(), place.y(), "click", 1)
        yield 0.05

    def press(self, name):
        """Click a button of the docker, and wait until it was pressed."""
        yield from self.until_pressed(name, self.click(self.widget(name)))

    def type_prompt(self, text):
        """Click into the prompt, clear it, and type."""
        yield from self.click(self.widget("prompt"))
        yield from self.xdotool("key", "ctrl+a", "key", "Delete")
        yield from self.xdotool("type", "--delay", 8, text)
        prompt = self.widget("prompt")
        yield from self.stage.until(lambda: prompt.toPlainText() == text, 10, "the prompt to be typed")

    def set_steps(self, steps):
        """Choose how many steps to take."""
        self.widget("steps").set_value(steps)

    def stroke(self, *places):
        """Draw through `places` of the canvas widget."""
        canvas = self.canvas()
        origin = canvas.mapToGlobal(canvas.rect().topLeft())
        for number, (x, y) in enumerate(places):
            yield from self.xdotool("mousemove", origin.x() + x, origin.y() + y, *(() if number else ("mousedown", 1)))
        yield from self.xdotool("mouseup", 1)

    def pen_down(self, x, y, moment):
        """Press at (x, y) of the canvas widget in the first turn of Krita's event loop, from now on, in which
        `moment()` holds. To be waited for."""
        place = self.canvas().mapToGlobal(QPoint(x, y))
        command = ["xdotool", "mousemove", str(place.x()), str(place.y()), "mousedown", "1"]
        pressed = []

        def look():
            if moment():
                self.looking.stop()
                subprocess.run(command, check=True)
                QApplication.processEvents(QEventLoop.ProcessEventsFlag.X11ExcludeTimers)  # No timer goes before it.
                pressed.append(True)

        self.looking.timeout.connect(look)
        self.looking.start(0)
        return self.stage.until(lambda: pressed, 10, "the moment to press")

    def xdotool(self, *words):
        """Have the X server do something, while Krita goes on."""
        process = subprocess.Popen(["xdotool", *map(str, words)], stdin=subprocess.DEVNULL)
        yield from self.stage.until(lambda: process.poll() is not None, 20, "xdotool")
        if process.returncode:
            raise RuntimeError(f"xdotool {words} ended with {process.returncode}")

    def undo(self):
        self.krita.action("edit_undo").trigger()
        yield 0.5

    def redo(self):
        self.krita.action("edit_redo").trigger()
        yield 0.5

    # What an artist waits for

    def until_pressed(self, name, doing):
        """Wait until `doing` has pressed a button; a job may begin and end before one looks at its widgets again."""
        button, pressed = self.widget(name), []
        connection = button.clicked.connect(lambda: pressed.append(name))
        yield from doing
        yield from self.stage.until(lambda: pressed, 10, f"the button {name}")
        button.clicked.disconnect(connection)

    def until_ready(self, seconds=90):
        """Wait until the daemon is there and warm."""
        yield from self.stage.until(lambda: self.state().startswith("Ready"), seconds, "the daemon to be ready")

    def until_idle(self, seconds=20):
        """Wait until Generate can be pressed and the docker is not in the middle of connecting."""
        yield from self.stage.until(
            lambda: self.widget("generate").isEnabled() and not self.state().startswith("Connecting"),
            seconds,
            "idleness",
        )

    def until_painting(self, seconds=60):
        """Wait until the daemon has taken a few steps."""

        def some_steps():
            found = re.search(r"step (\d+) of", self.state())
            return found is not None and int(found.group(1)) >= 3

        yield from self.stage.until(some_steps, seconds, "the third step")

    def until_done(self, seconds=90):
        """Wait for the end, well or not, of what is going on, and until its layer is settled."""
        yield from self.stage.until(lambda: self.widget("generate").isEnabled(), seconds, "the end of the job")
        document = self.krita.activeDocument()
        if document is not None:
            yield from self.stage.until(
                lambda: not any(lock for _, lock in layers(document)), 10, "the layer to settle"
            )
        yield 0.3

    def screenshot(self):
        """A picture of the whole screen."""
        return QApplication.primaryScreen().grabWindow(0)


def keep(picture, name):
    """Save a picture for people to look at."""
    os.makedirs(os.environ["UNDERPAINT_PICTURES"], exist_ok=True)
    picture.save(os.path.join(os.environ["UNDERPAINT_PICTURES"], name))


def layers(document):
    """Name and lock of every layer at the top, from the bottom up, without the mask of the global selection."""
    return [[n.name(), n.locked()] for n in document.topLevelNodes() if n.type() != "selectionmask"]


def pixels(document):
    """The whole picture: blue, green, red, alpha."""
    return bytes(document.pixelData(0, 0, document.width(), document.height()))


def _ellipse(width, height):
    rows = []
    for y in range(height):
        half = width / 2 * math.sqrt(max(0.0, 1 - ((y + 0.5) / (height / 2) - 1) ** 2))
        inside = min(width, 2 * round(half))
        margin = (width - inside) // 2
        rows.append(b"\0" * margin + b"\xff" * inside + b"\0" * (width - inside - margin))
    return b"".join(rows)
