"""Everything that Underpaint refuses, each with a sentence; and an empty prompt, which it does not."""

from krita import Krita
from underpaint_driver.artist import Artist, layers, pixels

try:
    from PyQt5.QtWidgets import QApplication, QDialog, QLineEdit
except ImportError:
    from PyQt6.QtWidgets import QApplication, QDialog, QLineEdit

CLOSE = "file_close"


def play(stage):
    artist = Artist(stage)
    facts = stage.facts
    yield from artist.arrange()
    yield from artist.until_ready()
    facts["no_document"] = yield from _sentence(stage, artist)
    yield from _wrong_colour_space(stage, artist)
    yield from artist.new(320, 240)
    yield from artist.select(1000, 1000, 50, 50)
    facts["outside"] = yield from _sentence(stage, artist)
    yield from artist.select(100, 100, 1, 1)
    facts["single_pixel"] = yield from _sentence(stage, artist)
    yield from artist.select(100, 60, 100, 100)
    yield from _unknown_model(stage, artist)
    facts["layers_before"] = layers(Krita.instance().activeDocument())
    artist.set_steps(4)
    yield from artist.press("generate")
    yield from artist.until_done()
    facts["layers_of_empty_prompt"] = layers(Krita.instance().activeDocument())
    yield from _tokens(stage, artist)


def _sentence(stage, artist):
    artist.widget("state").say("")
    yield from artist.press("generate")
    yield from stage.until(lambda: artist.state() and artist.widget("generate").isEnabled(), 20, "a sentence")
    yield 0.3
    return {"state": artist.state(), "boxes": stage.boxes()}


def _wrong_colour_space(stage, artist):
    yield from artist.new(200, 100, "RGBA", "U16")
    document = Krita.instance().activeDocument()
    before = layers(document), artist.history(), document.modified(), pixels(document)
    stage.facts["sixteen_bits"] = yield from _sentence(stage, artist)
    after = layers(document), artist.history(), document.modified(), pixels(document)
    stage.facts["sixteen_bits_untouched"] = before == after
    artist.krita.action(CLOSE).trigger()
    yield 1.0


def _unknown_model(stage, artist):
    model = artist.widget("model")
    model.addItem("Gone", "no-such-model")
    model.setCurrentIndex(model.count() - 1)
    stage.facts["unknown_model"] = yield from _sentence(stage, artist)
    model.setCurrentIndex(0)


def _tokens(stage, artist):
    """Through the dialog that the button with the dots opens."""
    yield from _enter_token(stage, artist, "0" * 64)
    yield from stage.until(lambda: "token" in artist.state(), 10, "the refusal of the token")
    stage.facts["wrong_token"] = {"state": artist.state(), "boxes": stage.boxes()}
    yield from _enter_token(stage, artist, "")
    yield from artist.until_ready()
    stage.facts["right_token"] = artist.state()


def _enter_token(stage, artist, token):
    def dialogs():
        return [w for w in QApplication.topLevelWidgets() if isinstance(w, QDialog) and w.isVisible()]

    yield from artist.click(artist.widget("server"))  # Its dialog is modal: the press ends with it.
    yield from stage.until(dialogs, 10, "the dialog")
    dialog = dialogs()[0]
    dialog.findChildren(QLineEdit)[1].setText(token)
    yield 0.2
    dialog.accept()
    yield from stage.until(lambda: not dialogs(), 10, "the dialog to close")
