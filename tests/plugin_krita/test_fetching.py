"""Models that have to be fetched first, in the docker's widgets: the Qt that Krita has, without Krita."""

from __future__ import annotations

import pytest

from .conftest import Facts, Told

SCRIPT = """
import json
from dataclasses import replace
from underpaint_krita.qt import QtCore, QtGui, QtWidgets
from underpaint_krita._vendor.underpaint_protocol.errors import describe
from underpaint_krita._vendor.underpaint_protocol.messages import Model, Pulling
from underpaint_krita.panel import Panel

HERE = Model("here", "Here", "family", ("inpaint",), ("ddim",), 16384, 8, 12, 3.0, "ddim", licence="MIT")
AWAY = replace(HERE, id="away", name="Away", state="absent", download=12345678901, licence="Apache-2.0",
               default_steps=4)
GATED = replace(AWAY, id="gated", name="Gated", gated=True, licence="A licence with a name as long as this",
                detail="its files are given to those who accept it at https://hub.example/some/model")
HUGE = replace(HERE, id="huge", name="Huge", state="unfit", detail="it needs 40 GiB of memory, and there are 8")
LONELY = replace(HERE, id="lonely", name="Lonely", state="unfit", detail="its file has no vae; fetch another model")

application = QtWidgets.QApplication(["panel"])
panel, facts, wishes = Panel(), {}, []
panel.fetch.connect(lambda model: wishes.append(["fetch", model]))
panel.stop_fetching.connect(lambda model: wishes.append(["stop", model]))
panel.generate.connect(lambda: wishes.append(["generate"]))
panel.show()

def choose(name):
    panel.model.setCurrentIndex(panel.model.findData(name))

def shown():
    names = ("generate_button", "cancel_button", "fetch_button")
    box = panel.fetch_box
    return {
        "buttons": [name for name in names if getattr(panel, name).isVisible()],
        "fetch": panel.fetch_button.text(),
        "can fetch": panel.fetch_button.isEnabled(),
        "box": box.sentence.accessibleName() if box.isVisible() else None,
        "stop": box.stop_button.isVisible(),
        "bar": box.bar.value() / box.bar.maximum() if box.bar.isVisible() else None,
    }

panel.show_models([HUGE, AWAY, HERE, LONELY, GATED])
model = panel.model
facts["list"] = [model.itemText(row) for row in range(model.count())]
facts["can be chosen"] = [bool(model.model().item(row).isEnabled()) for row in range(model.count())]
tip = QtCore.Qt.ItemDataRole.ToolTipRole
facts["tips"] = [model.itemData(row, tip) for row in range(model.count())]
pale = QtCore.Qt.ItemDataRole.ForegroundRole
facts["pale"] = [model.itemData(row, pale) is not None for row in range(model.count())]
facts["at first"] = [panel.wishes().model, shown()]
choose("away")
panel.grab()  # An exception while something is painted would end the program.
facts["chosen"] = [panel.wishes().model, panel.wishes().steps, shown()]
panel.generate_button.click()
facts["no picture"] = wishes[:]
panel.fetch_button.click()
facts["asked"] = wishes[:]
panel.show_pulling(Pulling("away", 0, 12345678901))
facts["begun"] = shown()
panel.show_pulling(Pulling("away", 3086419725, 12345678901, 240.0))
facts["on its way"] = shown()
choose("here")
facts["beside"] = shown()
panel.fetch_box.stop_button.click()
facts["stopped"] = wishes[-1]
choose("away")
panel.show_pulling(Pulling("away", 3086419725, 12345678901, stopped=True))
facts["after the stop"] = shown()
panel.show_pulling(Pulling("away", 0, 1, error=describe("disk_full", model="away", detail="<b>1 GB</b> is free")))
facts["failed"] = [shown(), "<b>" in panel.fetch_box.sentence.text()]
panel.fetch_button.click()
panel.show_pulling(Pulling("away", 5, 12345678901))
facts["tried again"] = shown()["box"]
panel.show_models([HUGE, replace(AWAY, state="ready"), HERE, GATED])
panel.show_pulling(Pulling("away", 12345678901, 12345678901))
facts["fetched"] = [panel.wishes().model, shown(), panel.notice.accessibleName()]
choose("gated")
facts["gated"] = [shown(), panel.fetch_box.sentence.text()]
url = "https://huggingface.co/black-forest-labs/FLUX.1-dev"
panel.show_fetch_problem("gated", describe("model_gated", model="gated", detail="no token was given", url=url))
facts["refused"] = [shown()["box"], '<a href="' + url + '"' in panel.fetch_box.sentence.text()]
choose("here")
facts["elsewhere"] = shown()
choose("gated")
facts["still refused"] = shown()["box"]
panel.set_busy(True)
facts["busy"] = shown()["buttons"]
panel.set_busy(False)
panel.show_pulling(Pulling("gated", 5, 10))
panel.forget_pulls()
facts["forgotten"] = shown()["stop"]
OWN = replace(HERE, id="own", name="Own", state="absent", detail="its folder own is not complete: vae missing")
panel.show_models([HERE, GATED, OWN])
choose("own")
facts["gap"] = shown()["box"]
choose("gated")
facts["small"] = {}
for width, height in ((300, 400), (300, 10), (180, 10)):
    panel.resize(width, max(height, panel.minimumSizeHint().height()))
    for _ in range(5):
        application.processEvents()
    panel.resize(width, max(height, panel.minimumSizeHint().height()))
    application.processEvents()
    sentence = panel.fetch_box.sentence
    whole = [panel.rect().contains(w.geometry()) and not w.visibleRegion().isEmpty()
             for w in (panel.model, panel.fetch_button)]
    facts["small"][f"{width} x {height}"] = [*whole, sentence.height() >= sentence.heightForWidth(sentence.width())]
facts["links"] = {}
for address in ("http://a.example/x", "https://a.example/x.", 'https://a.example/"onclick', "javascript:alert(1)"):
    panel.state.say("See " + address)
    facts["links"][address] = panel.state.text()
print(json.dumps(facts))
"""

IDLE = ["generate_button", "cancel_button"]


@pytest.fixture(scope="module")
def facts(told_by: Told) -> Facts:
    """What the panel showed."""
    return told_by(SCRIPT)


def test_what_is_ready_comes_first(facts: Facts) -> None:
    """Then, paler, what can be fetched, with size and licence, and what cannot run, which cannot be chosen."""
    assert facts["list"] == [
        "Here",
        "Away · 12 GB to fetch, Apache-2.0",
        "Gated · 12 GB to fetch, A licence with a name as long as this (to be accepted)",
        "Huge · does not fit: it needs 40 GiB of memory, and there are 8",
        "Lonely · cannot be used: its file has no vae; fetch another model",
    ]
    assert facts["can be chosen"] == [True, True, True, False, False]
    assert facts["pale"] == [False, True, True, True, True]


def test_a_model_says_why_it_does_not_fit(facts: Facts) -> None:
    """Where the mouse rests on it."""
    assert facts["tips"][3] == "Huge does not fit: it needs 40 GiB of memory, and there are 8."


def test_a_licence_to_be_accepted_is_marked(facts: Facts) -> None:
    """In the list, and where the mouse rests on it."""
    assert facts["tips"][2].endswith("Licence: A licence with a name as long as this (to be accepted).")
    assert "(to be accepted)" not in facts["tips"][1]


def test_a_folder_that_lacks_something_is_said(facts: Facts) -> None:
    """There is nothing to fetch, but something to mend."""
    assert facts["gap"] == "Own is not there yet: its folder own is not complete: vae missing."


def test_a_short_docker_shows_the_model_and_the_button(facts: Facts) -> None:
    """What scrolls is what lies between them; and a sentence of many lines is whole, however narrow it is."""
    for size, (model, button, sentence) in facts["small"].items():
        assert (size, model, button, sentence) == (size, True, True, True)


def test_a_ready_model_is_chosen_at_first(facts: Facts) -> None:
    """With nothing to be fetched."""
    model, shown = facts["at first"]
    assert (model, shown["buttons"], shown["box"]) == ("here", IDLE, None)


def test_a_model_that_is_absent_is_fetched_and_not_generated_with(facts: Facts) -> None:
    """Where Generate was is Fetch, with size and licence; no keyboard shortcut paints meanwhile."""
    model, steps, shown = facts["chosen"]
    assert (model, steps) == ("away", 4)
    assert (shown["buttons"], shown["fetch"]) == (["fetch_button"], "Fetch 12 GB (Apache-2.0)")
    assert shown["box"] == "Away is not there yet: 12 GB to fetch, Apache-2.0."
    assert not shown["stop"]
    assert facts["no picture"] == []
    assert facts["asked"] == [["fetch", "away"]]


def test_bytes_and_time_left_are_shown(facts: Facts) -> None:
    """With a bar, and a button to stop; it cannot be asked for a second time."""
    assert facts["begun"]["box"] == "Fetching Away, 12 GB…"
    shown = facts["on its way"]
    assert shown["box"] == "Fetching Away: 3.1 GB of 12 GB, 4 min left"
    assert (shown["bar"], shown["stop"], shown["can fetch"]) == (0.25, True, False)


def test_one_can_paint_with_another_model_meanwhile(facts: Facts) -> None:
    """The download is shown beside it, and can be stopped from there."""
    shown = facts["beside"]
    assert (shown["buttons"], shown["bar"], shown["stop"]) == (IDLE, 0.25, True)
    assert facts["stopped"] == ["stop", "away"]
    assert facts["after the stop"]["can fetch"]
    assert facts["after the stop"]["box"].startswith("Away is not there yet")


def test_a_failure_is_a_sentence_and_a_hint(facts: Facts) -> None:
    """As it is, not as markup; the model can be asked for again, and then the failure is forgotten."""
    shown, markup = facts["failed"]
    assert shown["box"].startswith("There is not enough room on the disk for “away”: <b>1 GB</b> is free. Make room")
    assert (markup, shown["buttons"], shown["can fetch"]) == (False, ["fetch_button"], True)
    assert facts["tried again"].startswith("Fetching Away")


def test_a_model_that_came_is_chosen_and_ready(facts: Facts) -> None:
    """Generate is back, and a notice says so."""
    model, shown, notice = facts["fetched"]
    assert (model, shown["buttons"], shown["box"]) == ("away", IDLE, None)
    assert notice == "Away was fetched and is ready."


def test_a_gated_model_says_what_to_accept(facts: Facts) -> None:
    """Before it is asked for, with an address to click on; a long licence is not squeezed into the button."""
    shown, text = facts["gated"]
    assert shown["box"].endswith(". Its files are given to those who accept it at https://hub.example/some/model.")
    assert '<a href="https://hub.example/some/model"' in text
    assert shown["fetch"] == "Fetch 12 GB"


def test_a_gated_model_that_is_refused_says_where(facts: Facts) -> None:
    """The hub's page can be clicked on; the refusal stays with its model, and nowhere else."""
    sentence, linked = facts["refused"]
    assert sentence.startswith("The model “gated” is given only to those who accepted its licence")
    assert linked
    assert facts["elsewhere"]["box"] is None
    assert facts["still refused"] == sentence


def test_cancel_stays_while_something_is_painted(facts: Facts) -> None:
    """Also if another model is chosen meanwhile."""
    assert facts["busy"] == IDLE


def test_a_new_connection_tells_anew(facts: Facts) -> None:
    """What was on its way may be over."""
    assert not facts["forgotten"]


def test_only_pages_are_links(facts: Facts) -> None:
    """A daemon's words open no more than an encrypted web page."""
    links = facts["links"]
    assert "<a" not in links["http://a.example/x"] + links["javascript:alert(1)"]
    assert '<a href="https://a.example/x" ' in links["https://a.example/x."]
    assert '<a href="https://a.example/" ' in links['https://a.example/"onclick']
