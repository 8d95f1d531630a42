"""Cancel in the middle: untouched, after the artist has drawn something, and with a stroke right behind it."""

import os

from underpaint_driver.artist import Artist, layers, pixels

STEPS = 300


def play(stage):
    artist = Artist(stage)
    yield from artist.arrange()
    yield from artist.open(os.environ["UNDERPAINT_PHOTOGRAPH"])
    yield from artist.until_ready()
    document = artist.krita.activeDocument()
    stage.facts["size"] = [document.width(), document.height()]
    yield from artist.select_ellipse(150, 60, 240, 240, 6)
    yield from artist.type_prompt("a blue circle")
    artist.set_steps(STEPS)
    document.setModified(False)
    stage.facts["before"] = _look(stage, document, "before")
    yield from _generate_and_cancel(stage, artist, document)
    stage.facts["after"] = _look(stage, document, "after")
    stage.facts["state"] = artist.state()

    yield from artist.press("generate")
    yield from artist.until_painting()
    stage.facts["modified_while_painting"] = document.modified()
    yield from artist.stroke((450, 300), (500, 320), (550, 300))
    yield 0.5
    yield from _cancel(stage, artist, document)
    stage.facts["after_a_stroke"] = _look(stage, document, "after_a_stroke")

    document.setModified(False)
    yield from artist.press("generate")
    yield from artist.until_painting()
    yield from artist.press("cancel")
    yield from artist.stroke((450, 100), (500, 120), (550, 100))
    yield from stage.until(lambda: len(layers(document)) == 1, 10, "the layer to be taken away")
    yield 1.5
    stage.facts["stroke_behind_it"] = _look(stage, document, "stroke_behind_it")
    for _ in range(2):  # the stroke may come before or after the removal
        yield from artist.undo()
        if len(layers(document)) > 1:
            break
    stage.facts["undone"] = layers(document)


def _generate_and_cancel(stage, artist, document):
    yield from artist.press("generate")
    yield from artist.until_painting()
    stage.facts["layers_while_painting"] = layers(document)
    yield from _cancel(stage, artist, document)


def _cancel(stage, artist, document):
    yield from artist.press("cancel")
    yield from stage.until(lambda: len(layers(document)) == 1, 10, "the layer to be taken away")
    yield 1.5


def _look(stage, document, name):
    stage.save(name, pixels(document))
    return {
        "layers": layers(document),
        "active": document.activeNode().name(),
        "modified": document.modified(),
    }
