"""Krita is killed in the middle of a job."""

import os
import signal

from underpaint_driver.artist import Artist, layers


def play(stage):
    artist = Artist(stage)
    yield from artist.arrange()
    yield from artist.open(os.environ["UNDERPAINT_PHOTOGRAPH"])
    yield from artist.until_ready()
    document = artist.krita.activeDocument()
    yield from artist.select_ellipse(150, 60, 240, 240, 6)
    yield from artist.type_prompt(os.environ["UNDERPAINT_PROMPT"])
    artist.set_steps(40)
    yield from artist.press("generate")
    yield from artist.until_painting()
    stage.facts["layers"] = layers(document)
    stage.write()
    os.kill(os.getpid(), signal.SIGKILL)
    yield 60
