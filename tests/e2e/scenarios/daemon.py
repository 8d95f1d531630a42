"""No daemon; one that the button starts; its death in the middle; and another one."""

import os
import signal

from underpaint_driver.artist import Artist, keep, layers, pixels


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
    facts["started"] = artist.state()
    yield from artist.select_ellipse(150, 60, 240, 240, 6)
    document.setModified(False)
    facts["layers_before"] = layers(document)
    facts["active_before"] = document.activeNode().name()
    stage.save("before", pixels(document))
    artist.set_steps(300)
    yield from artist.press("generate")
    yield from artist.until_painting()
    os.kill(_daemons()[-1], signal.SIGKILL)
    yield from artist.until_done()
    yield 1.5
    facts["killed"] = {"state": artist.state(), "boxes": stage.boxes(), "modified": document.modified()}
    facts["layers_after"] = layers(document)
    facts["active_after"] = document.activeNode().name()
    stage.save("after", pixels(document))

    yield from _start(artist)
    artist.set_steps(8)
    yield from artist.press("generate")
    yield from artist.until_done()
    facts["again"] = artist.state()
    facts["layers_again"] = layers(document)


def _start(artist):
    with open(os.path.join(os.environ["UNDERPAINT_HOME"], "launch.json"), "w", encoding="utf-8") as file:
        file.write(os.environ["UNDERPAINT_LAUNCH"])
    yield from artist.press("start")
    yield from artist.until_ready()


def _daemons():
    """The processes that the button has started, oldest first."""
    with open(os.environ["UNDERPAINT_PIDS"], encoding="utf-8") as file:
        return [int(line) for line in file]
