"""A Krita after one that was killed: with the document that was painted into, or without any."""

import os

from underpaint_driver.artist import Artist, keep, layers


def play(stage):
    artist = Artist(stage)
    facts = stage.facts
    yield from artist.arrange()
    if "UNDERPAINT_PHOTOGRAPH" in os.environ:
        yield from artist.open(os.environ["UNDERPAINT_PHOTOGRAPH"])
    notice = artist.widget("notice")
    yield from stage.until(notice.isVisible, 60, "a notice")
    yield from artist.until_done()
    keep(artist.screenshot(), f"recovered_{bool(artist.krita.documents())}.png")
    facts["notice"] = notice.accessibleName()
    facts["state"] = artist.state()
    document = artist.krita.activeDocument()
    if document is not None:
        facts["layers"] = layers(document)
        node = document.nodeByName(os.environ["UNDERPAINT_PROMPT"])
        bounds = node.bounds()
        facts["bounds"] = [bounds.x(), bounds.y(), bounds.width(), bounds.height()]
        facts["recipes"] = [bytes(document.annotation(name)).decode() for name in document.annotationTypes()]
    yield from artist.new(100, 80)
    yield from artist.press("generate")
    facts["notice_after_generate"] = notice.isVisible()
    yield from artist.until_done()
