"""A blue circle into a photograph: the whole way, with undo and redo, a second one by keyboard, a whole new picture."""

import os
import time

from underpaint_driver.artist import Artist, keep, layers, pixels

ELLIPSE = (150, 60, 240, 240)
MIDDLE = (240, 150, 60, 60)
FEATHER = 6
STEPS = 30
SMALL, LARGE = (920, 640), (1280, 800)
"""A software renderer paints the small window often enough to show every other step; people look at the large one."""


def play(stage):
    artist = Artist(stage, SMALL)
    yield from artist.arrange()
    yield from artist.until_ready()
    yield from _warm_up(artist)
    yield from artist.open(os.environ["UNDERPAINT_PHOTOGRAPH"])
    yield from artist.select_ellipse(*ELLIPSE, FEATHER)
    yield from artist.type_prompt("a blue circle")
    artist.set_steps(STEPS)
    yield from _first_picture(stage, artist)
    yield from _undo_and_redo(stage, artist)
    yield from _second_picture_by_keyboard(stage, artist)
    yield from _picture_from_nothing(stage, artist)
    yield from _picture_for_people(stage, artist)


def _warm_up(artist):
    """Let the daemon load its model, and Krita paint for the first time, in a picture of its own."""
    yield from artist.new(200, 150)
    artist.set_steps(2)
    yield from artist.press("generate")
    yield from artist.until_done()
    artist.krita.activeDocument().setModified(False)
    artist.krita.action("file_close").trigger()
    yield 0.5


def _first_picture(stage, artist):
    document = artist.krita.activeDocument()
    document.setModified(False)
    facts = stage.facts
    facts["size"] = [document.width(), document.height()]
    facts["steps"] = STEPS
    facts["layers_before"] = layers(document)
    facts["history_before"] = artist.history()
    facts["active_before"] = document.activeNode().name()
    facts["tool_before"] = artist.tool()
    stage.save("before", pixels(document))
    stage.save("mask", bytes(document.selection().pixelData(0, 0, *facts["size"])))
    yield from artist.press("generate")
    yield from _watch(stage, artist, document)
    facts["state_after"] = artist.state()
    facts["layers_after"] = layers(document)
    facts["history_after"] = artist.history()
    facts["active_after"] = document.activeNode().name()
    facts["tool_after"] = artist.tool()
    facts["modified_after"] = document.modified()
    facts["recipes"] = [bytes(document.annotation(name)).decode() for name in document.annotationTypes()]
    stage.save("after", pixels(document))


def _watch(stage, artist, document):
    """Look at the growing layer whenever Krita is idle, until the job ends."""
    previews, growing, gap, last = set(), [], 0.0, time.monotonic()
    while not artist.widget("generate").isEnabled():
        if not growing:
            growing = [node for node in document.topLevelNodes() if node.locked()]
        if growing and growing[0].locked():
            previews.add(bytes(growing[0].pixelData(*MIDDLE)))
        now = time.monotonic()
        gap, last = max(gap, now - last), now
        yield 0.002
    stage.facts["previews"] = len(previews - {bytes(len(next(iter(previews), b"")))})  # The layer was empty at first.
    stage.facts["growing_layer_is_the_result"] = growing[0] == document.nodeByName("a blue circle")
    stage.facts["longest_gap"] = gap
    yield from artist.until_done()


def _undo_and_redo(stage, artist):
    document = artist.krita.activeDocument()
    yield from artist.undo()
    stage.facts["layers_after_undo"] = layers(document)
    stage.save("after_undo", pixels(document))
    yield from artist.redo()
    stage.facts["layers_after_redo"] = layers(document)
    stage.save("after_redo", pixels(document))


def _second_picture_by_keyboard(stage, artist):
    document = artist.krita.activeDocument()
    yield from artist.type_prompt("red")
    artist.set_steps(4)
    yield from artist.until_pressed("generate", artist.xdotool("key", "ctrl+Return"))
    yield from artist.until_done()
    stage.facts["boxes_after_ctrl_return"] = stage.boxes()
    stage.facts["layers_after_ctrl_return"] = layers(document)


def _picture_from_nothing(stage, artist):
    document = artist.krita.activeDocument()
    document.setSelection(None)
    artist.krita.action("deselect").trigger()
    yield 0.3
    yield from artist.type_prompt("green")
    yield from artist.press("generate")
    yield from artist.until_done()
    stage.facts["state_without_selection"] = artist.state()
    stage.facts["layers_without_selection"] = layers(document)
    stage.save("without_selection", pixels(document))


def _picture_for_people(stage, artist):
    artist.size = LARGE
    yield from artist.open(os.environ["UNDERPAINT_PHOTOGRAPH"])
    yield from artist.select_ellipse(*ELLIPSE, FEATHER)
    yield from artist.type_prompt("a blue circle")
    artist.set_steps(STEPS)
    yield from artist.press("generate")
    yield from artist.until_painting()
    keep(artist.screenshot(), "while_painting.png")
    yield from artist.until_done()
    keep(artist.screenshot(), "finished.png")
