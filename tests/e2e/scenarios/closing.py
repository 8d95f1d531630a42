"""The document is closed in the middle; then, with another one, Krita itself."""

import os

from underpaint_driver.artist import Artist

STEPS = 300


def play(stage):
    artist = Artist(stage)
    yield from artist.arrange()
    yield from _begin(artist)
    artist.krita.action("file_close").trigger()
    yield from stage.until(lambda: not artist.krita.documents(), 10, "the document to close")
    yield from artist.until_done()
    yield 0.5
    stage.facts["boxes_after_document"] = stage.boxes()
    stage.facts["state_after_document"] = artist.state()
    yield from _begin(artist)
    stage.facts["painting_again"] = artist.state()


def _begin(artist):
    yield from artist.open(os.environ["UNDERPAINT_PHOTOGRAPH"])
    yield from artist.until_idle()
    yield from artist.select_ellipse(150, 60, 240, 240, 6)
    artist.krita.activeDocument().setModified(False)  # From Krita 5.3 on, selecting is a change that can be undone.
    yield from artist.type_prompt("a blue circle")
    artist.set_steps(STEPS)
    yield from artist.press("generate")
    yield from artist.until_painting()
