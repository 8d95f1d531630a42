"""Two windows of Krita: layers begin to grow behind the one in front, and before Krita is done with the last."""

import os

from krita import Krita
from underpaint_driver.artist import Artist
from underpaint_krita._vendor.underpaint_protocol.geometry import Box
from underpaint_krita.layer import GrowingLayer


def play(stage):
    artist = Artist(stage)
    yield from artist.arrange()
    yield from artist.open(os.environ["UNDERPAINT_PHOTOGRAPH"])
    yield from artist.until_ready()
    document = artist.krita.activeDocument()
    first = Krita.instance().activeWindow()
    yield from _open_window(stage, artist)
    yield from artist.new(100, 80)
    yield from _grow_behind(stage, document, first)
    yield from _grow_twice(stage, document)
    yield from _grow_for_a_layer_that_goes(stage, document)


def _open_window(stage, artist):
    window = artist.krita.openWindow()
    window.qwindow().show()
    yield from _bring_to_front(stage, window)
    yield 1.0
    return window


def _bring_to_front(stage, window):
    window.qwindow().activateWindow()
    window.qwindow().raise_()
    yield from stage.until(lambda: Krita.instance().activeWindow() == window, 10, "a window to come to the front")


def _grow_behind(stage, document, window):
    """Begin a layer in a document whose window is not in front, then look at the window."""
    artists = document.activeNode().name()
    layer = _growing(document, "behind")
    yield from stage.until(layer.settle, 10, "the layer to settle")
    yield 0.5
    stage.facts["active_behind"] = document.activeNode().name()
    yield from _bring_to_front(stage, window)
    layer.settle()
    stage.facts["given_back"] = document.activeNode().name() == artists
    yield from _take_away(stage, layer)


def _grow_twice(stage, document):
    """Begin a layer right after another one, while Krita makes that one active."""
    artists = document.activeNode()
    first = _growing(document, "first")
    yield from stage.until(lambda: document.activeNode() != artists, 10, "Krita to make the first active")
    second = _growing(document, "second")
    yield from stage.until(lambda: all([first.settle(), second.settle()]), 10, "both layers to settle")
    yield 0.3
    stage.facts["given_back_twice"] = document.activeNode() == artists
    yield from _take_away(stage, first)
    yield from _take_away(stage, second)


def _grow_for_a_layer_that_goes(stage, document):
    """The artist removes the active layer before Krita makes the growing one active."""
    artists = document.activeNode()
    going = document.createNode("going", "paintlayer")
    document.rootNode().addChildNode(going, None)
    yield from stage.until(lambda: document.activeNode() == going, 10, "Krita to make the layer active")
    layer = _growing(document, "left")
    going.remove()
    yield from stage.until(layer.settle, 10, "the layer to settle")
    yield 0.3
    stage.facts["active_is_left"] = document.activeNode() is not None
    document.setActiveNode(artists)
    yield from _take_away(stage, layer)


def _growing(document, name):
    return GrowingLayer(document, document.activeNode(), Box(0, 0, 100, 80), name)


def _take_away(stage, layer):
    removal = layer.remove()
    layer.release()
    yield from stage.until(removal.settle, 10, "the layer to go")
