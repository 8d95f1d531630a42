"""Somebody else's picture is painted first."""

import os

from underpaint_driver.artist import Artist


def play(stage):
    artist = Artist(stage)
    yield from artist.arrange()
    yield from artist.until_ready()
    yield from artist.new(100, 80)
    artist.set_steps(2)
    yield from artist.press("generate")
    yield from stage.until(lambda: "before yours" in artist.state(), 20, "the place in the queue")
    stage.facts["waiting"] = artist.state()
    stage.facts["cancel"] = artist.widget("cancel").isEnabled()
    with open(os.environ["UNDERPAINT_SEEN"], "w", encoding="utf-8"):
        pass
    yield from artist.until_done()
    stage.facts["state"] = artist.state()
