"""Plays one scenario inside Krita and writes down what it saw. Installed by the end-to-end tests only."""

import os

from krita import Extension, Krita

from .stage import Stage


class Driver(Extension):
    """Waits for Krita's first window and then hands over to the scenario that `UNDERPAINT_SCENARIO` names."""

    stage = None

    def setup(self):
        pass

    def createActions(self, window):
        if self.stage is None and "UNDERPAINT_SCENARIO" in os.environ:  # Krita calls this for each of its windows.
            self.stage = Stage(os.environ["UNDERPAINT_SCENARIO"], os.environ["UNDERPAINT_FACTS"])
            self.stage.open()


Krita.instance().addExtension(Driver(Krita.instance()))
