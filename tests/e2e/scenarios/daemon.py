"""No daemon; one that the button starts; its death in the middle; and another one, which brings the picture."""

import os
import signal

from underpaint_driver.artist import Artist, keep, layers, pixels

try:
    from PyQt5.QtWidgets import QApplication, QDialog, QLineEdit
except ImportError:
    from PyQt6.QtWidgets import QApplication, QDialog, QLineEdit


def play(stage):
    artist = Artist(stage)
    facts = stage.facts
    yield from artist.arrange()
    yield from artist.open(os.environ["UNDERPAINT_PHOTOGRAPH"])
    document = artist.krita.activeDocument()
    facts["size"] = [document.width(), document.height()]
    yield from artist.until_idle()
    yield from artist.type_prompt("a blue circle")
    yield from artist.press("generate")
    yield from artist.until_done()
    facts["without"] = {"state": artist.state(), "button": artist.widget("start").isVisible(), "boxes": stage.boxes()}
    keep(artist.screenshot(), "no_daemon.png")

    yield from _start(artist)
    yield from artist.until_ready()
    facts["started"] = artist.state()
    yield from artist.select_ellipse(150, 60, 240, 240, 6)
    document.setModified(False)
    facts["layers_before"] = layers(document)
    facts["active_before"] = document.activeNode().name()
    facts["history_before"] = artist.history()
    yield from _killed(stage, artist, document)
    yield from _start(artist)
    yield from stage.until(lambda: "step" in artist.state(), 60, "the second attempt")
    facts["second_attempt"] = artist.state()
    yield from artist.until_done()
    facts["arrived"] = artist.state()
    facts["layers_arrived"] = layers(document)
    facts["history_arrived"] = artist.history()
    facts["active_arrived"] = document.activeNode().name()
    yield from _cancelled(stage, artist, document)
    yield from _refused(stage, artist)
    yield from _elsewhere(stage, artist)


def _killed(stage, artist, document):
    """The daemon dies in the middle: the layer and its last preview stay, and the docker says what goes on."""
    artist.set_steps(80)
    yield from artist.press("generate")
    yield from artist.until_painting()
    os.kill(_daemons()[-1], signal.SIGKILL)
    yield from stage.until(lambda: "trying again in" in artist.state(), 20, "the docker to wait for the daemon")
    yield 0.5
    growing = next(node for node in document.topLevelNodes() if node.locked())
    stage.facts["killed"] = {
        "state": artist.state(),
        "button": artist.widget("start").isVisible(),
        "cancel": artist.widget("cancel").isEnabled(),
        "layers": layers(document),
        "preview": any(bytes(growing.pixelData(240, 150, 60, 60))),
        "boxes": stage.boxes(),
    }
    keep(artist.screenshot(), "reconnecting.png")


def _cancelled(stage, artist, document):
    """Without a daemon, Cancel takes the layer away."""
    document.setModified(False)
    before = stage.facts["layers_before_cancel"] = layers(document)
    stage.save("before", pixels(document))
    artist.set_steps(300)
    yield from artist.press("generate")
    yield from artist.until_painting()
    os.kill(_daemons()[-1], signal.SIGKILL)
    yield from stage.until(lambda: "trying again" in artist.state(), 20, "the loss of the connection")
    yield from artist.press("cancel")
    yield from stage.until(lambda: layers(document) == before, 10, "the layer to be taken away")
    yield 1.5
    stage.facts["cancelled"] = {"generate": artist.widget("generate").isEnabled(), "modified": document.modified()}
    stage.save("after", pixels(document))


def _refused(stage, artist):
    """Without a daemon, Generate in a document that cannot be painted into."""
    yield from artist.new(100, 80, "RGBA", "U16")
    yield from artist.press("generate")
    yield from stage.until(lambda: "8 bits" in artist.state(), 10, "the refusal")
    stage.facts["refused"] = {"state": artist.state(), "button": artist.widget("start").isVisible()}


def _elsewhere(stage, artist):
    """Another server, which is not there either."""

    def dialogs():
        return [w for w in QApplication.topLevelWidgets() if isinstance(w, QDialog) and w.isVisible()]

    yield from artist.click(artist.widget("server"))
    yield from stage.until(dialogs, 10, "the dialog")
    dialog = dialogs()[0]
    dialog.findChildren(QLineEdit)[0].setText(os.environ["UNDERPAINT_AWAY"])
    dialog.accept()
    yield from stage.until(lambda: os.environ["UNDERPAINT_AWAY"] in artist.state(), 20, "a sentence")
    stage.facts["elsewhere"] = {"state": artist.state(), "button": artist.widget("start").isVisible()}


def _start(artist):
    with open(os.path.join(os.environ["UNDERPAINT_HOME"], "launch.json"), "w", encoding="utf-8") as file:
        file.write(os.environ["UNDERPAINT_LAUNCH"])
    yield from artist.press("start")


def _daemons():
    """The processes that the button has started, oldest first."""
    with open(os.environ["UNDERPAINT_PIDS"], encoding="utf-8") as file:
        return [int(line) for line in file]
