"""Where the new layer goes: above those of before, into a group, above a masked layer, into a document that is not in
front any more."""

import os

from krita import Krita
from underpaint_driver.artist import Artist, layers, pixels

try:
    from PyQt5.QtWidgets import QMdiArea
except ImportError:
    from PyQt6.QtWidgets import QMdiArea

STEPS = 6
MANY = 300


def play(stage):
    artist = Artist(stage)
    yield from artist.arrange()
    yield from artist.until_ready()
    yield from artist.type_prompt("green")
    yield from artist.new(320, 240)
    yield from _group_with_a_local_selection(stage, artist)
    yield from _active_mask(stage, artist)
    yield from _undone_in_the_middle(stage, artist)
    yield from _transforming(stage, artist)
    yield from _another_document_in_front(stage, artist)
    yield from _one_after_the_other(stage, artist)


def _generate(artist, steps=STEPS):
    artist.set_steps(steps)
    yield from artist.press("generate")
    yield from artist.until_done()


def _group_with_a_local_selection(stage, artist):
    """The active layer is in a group, and what is selected is a mask of that layer's own."""
    document = artist.krita.activeDocument()
    group, inside = document.createGroupLayer("group"), document.createNode("inside", "paintlayer")
    document.rootNode().addChildNode(group, None)
    group.addChildNode(inside, None)
    yield from artist.select(80, 60, 100, 90)
    mask = document.createSelectionMask("local")
    mask.setSelection(document.selection())
    inside.addChildNode(mask, None)
    artist.krita.action("deselect").trigger()
    yield 0.5
    document.setActiveNode(inside)
    yield 0.3
    stage.facts["global_selection"] = document.selection() is not None
    yield from _generate(artist)
    stage.facts["group"] = [node.name() for node in group.childNodes()]
    painted = next(node for node in group.childNodes() if node.name() == "green")
    bounds = painted.bounds()
    stage.facts["local_bounds"] = [bounds.x(), bounds.y(), bounds.width(), bounds.height()]
    stage.facts["active_in_group"] = document.activeNode().name()


def _active_mask(stage, artist):
    """The active node is the mask itself, to which no layer can be added."""
    document = artist.krita.activeDocument()
    inside = document.nodeByName("inside")
    document.setActiveNode(inside.childNodes()[0])
    yield 0.3
    yield from _generate(artist)
    stage.facts["group_with_mask"] = [node.name() for node in document.nodeByName("group").childNodes()]


def _undone_in_the_middle(stage, artist):
    """The artist undoes the growing layer."""
    document = artist.krita.activeDocument()
    document.setActiveNode(document.nodeByName("inside"))
    yield 0.3
    before = [node.name() for node in document.nodeByName("group").childNodes()]
    artist.set_steps(MANY)
    yield from artist.press("generate")
    yield from artist.until_painting()
    yield from artist.undo()
    yield from artist.until_done()
    after = [node.name() for node in document.nodeByName("group").childNodes()]
    stage.facts["undone"] = {"state": artist.state(), "unchanged": before == after, "boxes": stage.boxes()}


def _transforming(stage, artist):
    """The artist is in the middle of a transformation, which lasts until another tool is taken."""
    yield from artist.new(400, 300)
    document = artist.krita.activeDocument()
    paint = document.createNode("paint", "paintlayer")
    paint.setPixelData(b"\x10\x20\x90\xff" * 10000, 50, 50, 100, 100)
    document.rootNode().addChildNode(paint, None)
    yield 0.5
    artist.krita.action("KisToolTransform").trigger()
    yield 0.5
    yield from artist.stroke((200, 200), (260, 240))
    yield 0.5
    artist.set_steps(STEPS)
    yield from artist.press("generate")
    yield from artist.until_idle(60)
    facts = stage.facts["transforming"] = {"overlay": artist.overlay_is_visible(), "layers": layers(document)}
    artist.krita.action("KritaShape/KisToolBrush").trigger()
    yield from stage.until(lambda: len(layers(document)) == 3, 10, "the layer after the transformation")
    yield from artist.until_done()
    facts["layers_after"] = layers(document)
    facts["overlay_after"] = artist.overlay_is_visible()
    facts["moved"] = paint.bounds().x() != 50
    facts["history"] = artist.history()


def _another_document_in_front(stage, artist):
    """The artist goes to another picture while the first one is being painted."""
    yield from artist.new(200, 150)
    first = artist.krita.activeDocument()
    yield from artist.select(40, 40, 80, 60)
    artist.set_steps(60)
    yield from artist.press("generate")
    yield from artist.new(210, 160)
    second = Krita.instance().activeDocument()
    other = pixels(second)
    yield from stage.until(lambda: artist.widget("generate").isEnabled(), 60, "the job to end")
    yield from stage.until(lambda: ["green", False] in layers(first), 10, "the layer in the first picture")
    stage.facts["first"] = layers(first)
    stage.facts["second"] = layers(second)
    stage.facts["second_untouched"] = pixels(second) == other
    stage.facts["views"] = len(artist.window.findChild(QMdiArea).subWindowList())


def _one_after_the_other(stage, artist):
    """Again and again on the same layer, and on what was saved."""
    yield from artist.new(100, 80)
    document = artist.krita.activeDocument()
    history = artist.history()
    facts = stage.facts["again"] = {}
    yield from _called(artist, "first")
    yield from _called(artist, "second")
    facts["layers"] = _names(document)
    facts["active"] = document.activeNode().name()
    facts["seen"] = pixels(document) == bytes(document.nodeByName("second").pixelData(0, 0, 100, 80))
    facts["steps"] = artist.history()[len(history) :]
    document.nodeByName("second").setName("renamed")
    document.rootNode().addChildNode(document.createNode("ink", "paintlayer"), None)
    yield 0.5  # Krita makes it the active one.
    yield from _activate(document, "Background")
    yield from _called(artist, "third")
    yield from _activate(document, "first")
    yield from _called(artist, "fourth")
    facts["layers_with_ink"] = _names(document)
    path = os.path.join(os.environ["HOME"], "again.kra")
    document.setBatchmode(True)
    document.saveAs(path)
    document.setModified(False)
    artist.krita.action("file_close").trigger()
    yield 0.5
    yield from artist.open(path)
    document = artist.krita.activeDocument()
    yield from _activate(document, "Background")
    yield from _called(artist, "fifth")
    facts["layers_of_the_file"] = _names(document)


def _called(artist, prompt):
    yield from artist.type_prompt(prompt)
    yield from _generate(artist, 2)


def _activate(document, name):
    document.setActiveNode(document.nodeByName(name))
    yield 0.3


def _names(document):
    return [name for name, _ in layers(document)]
