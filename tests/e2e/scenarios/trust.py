"""A server with a certificate of its own: the question, a no, a yes; or one that shows another one than before."""

import os

from underpaint_driver.artist import Artist, keep

try:
    from PyQt5.QtWidgets import QApplication, QWidget
except ImportError:
    from PyQt6.QtWidgets import QApplication, QWidget


def play(stage):
    artist = Artist(stage)
    if "UNDERPAINT_CHANGED" in os.environ:
        yield from _changed(stage, artist)
    else:
        yield from _asked(stage, artist)


def _asked(stage, artist):
    facts = stage.facts
    question = yield from _question(stage)
    facts["fingerprint"] = question.findChild(QWidget, "underpaint_fingerprint").text()
    keep(artist.screenshot(), "trust.png")
    question.findChild(QWidget, "underpaint_trust_no").click()
    yield from artist.arrange()
    facts["refused"] = {"state": artist.state(), "boxes": stage.boxes()}
    yield from artist.new(100, 80)
    artist.set_steps(2)
    yield from artist.press("generate")
    question = yield from _question(stage)
    question.findChild(QWidget, "underpaint_trust_yes").click()
    yield from artist.until_ready()
    facts["trusted"] = {"state": artist.state(), "boxes": stage.boxes()}
    yield from artist.press("generate")
    yield from artist.until_done()
    facts["painted"] = artist.state()


def _changed(stage, artist):
    yield from artist.arrange()
    yield from stage.until(lambda: "certificate" in artist.state(), 20, "the refusal")
    yield 0.5
    stage.facts["changed"] = {"state": artist.state(), "boxes": stage.boxes()}


def _question(stage):
    def asked():
        return [box for box in QApplication.topLevelWidgets() if box.objectName() == "underpaint_trust"]

    yield from stage.until(lambda: any(box.isVisible() for box in asked()), 20, "the question")
    yield 0.3
    return next(box for box in asked() if box.isVisible())
