"""Runs a scenario: a Python file with a generator `play(stage)` that yields seconds to wait and fills `stage.facts`."""

import faulthandler
import json
import os
import runpy
import sys
import time
import traceback

from krita import Krita

try:
    from PyQt5.QtCore import QTimer
    from PyQt5.QtWidgets import QApplication, QDialog, QMessageBox
except ImportError:
    from PyQt6.QtCore import QTimer
    from PyQt6.QtWidgets import QApplication, QDialog, QMessageBox


class Stage:
    """Where a scenario plays: waiting, facts, and the way out."""

    def __init__(self, scenario, facts_file):
        self.scenario = scenario
        self.facts_file = facts_file
        self.facts = {}
        self.errors = []
        self.leave = True
        self.witness = str
        self._play = None
        # Krita's own hook opens a modal box, in which a test would hang.
        sys.excepthook = lambda *error: self.errors.append("".join(traceback.format_exception(*error)))

    def open(self):
        """Begin as soon as Krita's window is there."""
        window = Krita.instance().activeWindow()
        if window is None or not window.qwindow().isVisible():
            QTimer.singleShot(50, self.open)
            return
        faulthandler.enable()  # Should Krita crash or stand still, its log shows where.
        faulthandler.dump_traceback_later(float(os.environ["UNDERPAINT_PATIENCE"]))
        self._play = runpy.run_path(self.scenario)["play"](self)
        QTimer.singleShot(500, self._step)

    def until(self, condition, seconds, what):
        """Wait in the event loop until `condition()` holds; `what` is said if it does not within `seconds`."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds} s for: {what}")
            yield 0.02

    def boxes(self):
        """The text of every dialog that is open."""
        return [
            widget.text() if isinstance(widget, QMessageBox) else widget.windowTitle()
            for widget in QApplication.topLevelWidgets()
            if isinstance(widget, QDialog) and widget.isVisible()
        ]

    def save(self, name, content):
        """Keep bytes beside the facts, for the test to look at."""
        with open(f"{self.facts_file}.{name}", "wb") as file:
            file.write(content)

    def write(self):
        """Write the facts down, so that they survive whatever Krita does next."""
        with open(self.facts_file + ".new", "w", encoding="utf-8") as file:
            json.dump({"facts": self.facts, "errors": self.errors, "boxes": self.boxes()}, file)
        os.replace(self.facts_file + ".new", self.facts_file)

    def close_krita(self):
        """Close every document unsaved and then all windows, as a user does who has nothing to save."""
        for document in Krita.instance().documents():
            document.setModified(False)
            document.close()
        for window in Krita.instance().windows():
            window.qwindow().close()

    def _step(self):
        try:
            seconds = next(self._play)
        except StopIteration:
            self._finish()
        except Exception:
            self.errors.append(traceback.format_exc() + self.witness())
            self._finish()
        else:
            QTimer.singleShot(int(seconds * 1000), self._step)

    def _finish(self):
        self.write()
        if self.leave:
            self.close_krita()
