"""The artist draws one stroke, begun before the first preview and ended after the result.

The pen comes down in the moment when Krita has made the new layer, which is locked, the active one.
"""

import os

from krita import Krita
from underpaint_driver.artist import Artist, keep, layers

STEPS = 60
BRUSH = 12
LEFT, RIGHT, TOP = 40, 720, 70
ROW = 26
STEP = 14


def play(stage):
    artist = Artist(stage)
    yield from artist.arrange()
    yield from artist.open(os.environ["UNDERPAINT_PHOTOGRAPH"])
    yield from artist.until_ready()
    document = artist.krita.activeDocument()
    ink = document.createNode("ink", "paintlayer")
    document.rootNode().addChildNode(ink, None)
    yield 0.5
    Krita.instance().activeWindow().activeView().setBrushSize(BRUSH)
    yield from artist.select_ellipse(150, 60, 240, 240, 6)
    yield from artist.type_prompt("a blue circle")
    artist.set_steps(STEPS)
    stage.facts["history_before"] = artist.history()
    artist.widget("generate").clicked.connect(artist.krita.action("deselect").trigger)  # Krita paints into it only.
    down = artist.pen_down(LEFT, TOP, lambda: document.activeNode() != ink)
    yield from artist.press("generate")
    yield from down
    yield from _draw(stage, artist)
    yield from stage.until(lambda: not artist.overlay_is_visible(), 10, "the overlay to go")
    yield 1.0
    stage.facts["history_after"] = artist.history()
    stage.facts["layers"] = layers(document)
    stage.facts["active"] = document.activeNode().name()
    stage.facts["size"] = [document.width(), document.height()]
    stage.save("ink", bytes(ink.pixelData(0, 0, document.width(), document.height())))
    result = document.nodeByName("a blue circle")
    stage.save("result", bytes(result.pixelData(0, 0, document.width(), document.height())))


def _draw(stage, artist):
    """Draw lines to and fro until some time after the job has ended."""
    overlay, busy, drawn, after_the_end = set(), False, [], 10
    canvas = artist.canvas()
    origin = canvas.mapToGlobal(canvas.rect().topLeft())
    for x, y in _lines():
        yield from artist.xdotool("mousemove", origin.x() + x, origin.y() + y)
        drawn.append(artist.to_image(x, y))
        busy = busy or "step" in artist.state()
        if artist.overlay_is_visible():
            overlay.add(hash(artist.overlay_pixels()))
        if len(drawn) == 25:
            keep(artist.screenshot(), "during_a_stroke.png")
        after_the_end -= artist.widget("generate").isEnabled()
        if not after_the_end:
            break
    stage.facts["overlay_pictures"] = len(overlay)
    stage.facts["job_ended_during_the_stroke"] = not after_the_end
    stage.facts["steps_seen"] = busy
    stage.facts["drawn"] = drawn
    yield from artist.xdotool("mouseup", 1)


def _lines():
    y, forward = TOP, True
    while True:
        xs = range(LEFT, RIGHT, STEP)
        for x in xs if forward else reversed(xs):
            yield x, y
        y, forward = y + ROW, not forward
