"""A model that is not there: chosen in the list, fetched, stopped, fetched again, and painted with."""

import os

from underpaint_driver.artist import Artist, keep, layers

NAME = "Brush from the hub"
GATED = "Brush with a licence"
LARGE = "Brush for giants"


def play(stage):
    artist = Artist(stage)
    yield from artist.open(os.environ["UNDERPAINT_PHOTOGRAPH"])
    yield from artist.until_ready()
    yield from stage.until(lambda: "does not fit" in _row(artist, LARGE), 20, "what fits to be known")
    yield from _look_at_the_list(stage, artist)
    yield from _fetch_what_wants_a_licence(stage, artist)
    yield from _fetch_and_stop(stage, artist)
    yield from _fetch_to_the_end(stage, artist)
    yield from _paint_with_it(stage, artist)


def _look_at_the_list(stage, artist):
    model = artist.widget("model")
    stage.facts["chosen_at_first"] = model.currentText()
    stage.facts["list"] = [[text, model.model().item(row).isEnabled()] for row, text in enumerate(_texts(artist))]
    stage.facts["why"] = model.itemData(_texts(artist).index(_row(artist, LARGE)), 3)  # Qt's ToolTipRole
    yield from artist.click(model)
    yield from stage.until(model.view().isVisible, 10, "the list to open")
    yield 0.5
    keep(artist.screenshot(), "models.png")
    yield from artist.xdotool("key", "Escape")
    yield from stage.until(lambda: not model.view().isVisible(), 10, "the list to close")


def _fetch_what_wants_a_licence(stage, artist):
    yield from _choose(stage, artist, GATED)
    stage.facts["gated"] = _seen(artist)
    yield from artist.press("fetch")
    yield from stage.until(lambda: "given only to those" in _sentence(artist), 30, "the refusal")
    yield 0.3
    stage.facts["refused"] = _seen(artist)
    stage.facts["refused_links"] = artist.widget("fetch_sentence").text()
    keep(artist.screenshot(), "licence.png")


def _fetch_and_stop(stage, artist):
    yield from _choose(stage, artist, NAME)
    stage.facts["offered"] = _seen(artist)
    keep(artist.screenshot(), "to_be_fetched.png")
    yield from artist.press("fetch")
    yield from stage.until(lambda: " MB of " in _sentence(artist), 30, "bytes to come")
    yield 0.6
    stage.facts["coming"] = _seen(artist)
    keep(artist.screenshot(), "fetching.png")
    yield from artist.press("stop")
    yield from stage.until(lambda: not artist.widget("stop").isVisible(), 10, "the stop")
    stage.facts["stopped"] = _seen(artist)


def _fetch_to_the_end(stage, artist):
    yield from artist.press("fetch")
    with open(os.environ["UNDERPAINT_SEEN"], "w", encoding="utf-8"):
        pass
    yield from stage.until(lambda: artist.widget("generate").isVisible(), 60, "the model to be there")
    yield from stage.until(lambda: artist.widget("notice").isVisible(), 10, "the notice")
    yield 0.3
    stage.facts["fetched"] = _seen(artist)
    stage.facts["notice"] = artist.widget("notice").accessibleName()
    stage.facts["chosen_at_last"] = artist.widget("model").currentText()
    keep(artist.screenshot(), "fetched.png")


def _paint_with_it(stage, artist):
    yield from artist.select(150, 60, 200, 200)
    yield from artist.type_prompt("red")
    artist.set_steps(2)
    yield from artist.press("generate")
    yield from artist.until_done()
    stage.facts["painted"] = artist.state()
    stage.facts["layers"] = layers(artist.krita.activeDocument())
    stage.facts["notice_of_a_short_prompt"] = artist.widget("notice").accessibleName()
    artist.widget("prompt").setPlainText("red " * 200)
    yield from artist.press("generate")
    yield from artist.until_done()
    stage.facts["notice_of_a_long_prompt"] = artist.widget("notice").accessibleName()
    keep(artist.screenshot(), "notice.png")


def _choose(stage, artist, name):
    """Choose a model as a hand does: open the list, and click on its row."""
    model = artist.widget("model")
    yield from artist.click(model)
    yield from stage.until(model.view().isVisible, 10, "the list to open")
    yield 0.3
    row = model.model().index(_texts(artist).index(_row(artist, name)), 0)
    model.view().scrollTo(row)
    yield 0.3
    place = model.view().viewport().mapToGlobal(model.view().visualRect(row).center())
    yield from artist.xdotool("mousemove", place.x(), place.y(), "click", 1)
    yield from stage.until(lambda: model.currentText().startswith(name), 10, "the model to be chosen")
    yield 0.3


def _texts(artist):
    model = artist.widget("model")
    return [model.itemText(row) for row in range(model.count())]


def _row(artist, name):
    return next((text for text in _texts(artist) if text.startswith(name)), "")


def _sentence(artist):
    return artist.widget("fetch_sentence").accessibleName()


def _seen(artist):
    names = ("generate", "cancel", "fetch", "stop")
    return {
        "buttons": [name for name in names if artist.widget(name).isVisible()],
        "fetch": artist.widget("fetch").text(),
        "sentence": _sentence(artist) if artist.widget("fetch_sentence").isVisible() else "",
        "bar": artist.widget("fetch_progress").value(),
        "width": artist.docker.width(),
    }
