"""Cancelling in the middle."""

from __future__ import annotations

import pytest

from .conftest import Play
from .launch import Performance


@pytest.fixture(scope="module")
def seen(play: Play) -> Performance:
    """What happened in Krita."""
    performance = play("cancel")
    assert performance.errors == [], performance.output
    return performance


def test_the_layer_was_there(seen: Performance) -> None:
    """The job was cancelled while its layer was growing."""
    assert seen.facts["layers_while_painting"] == [["Background", False], ["a blue circle…", True]]


def test_cancel_leaves_no_trace(seen: Performance) -> None:
    """Pixels, layers, the active layer and the modified flag are what they were."""
    assert seen.facts["after"] == seen.facts["before"]
    assert seen.facts["after"]["modified"] is False
    assert seen.saved("after") == seen.saved("before")


def test_cancel_says_so(seen: Performance) -> None:
    """The docker tells that it has stopped."""
    assert seen.facts["state"] == "Cancelled."


def test_cancel_keeps_what_was_drawn_meanwhile(seen: Performance) -> None:
    """A stroke of the artist's own stays, and Krita knows that there is something to save."""
    assert seen.facts["modified_while_painting"] is False
    assert seen.facts["after_a_stroke"] == {**seen.facts["before"], "modified": True}
    assert seen.saved("after_a_stroke") != seen.saved("before")


def test_a_stroke_right_behind_cancel_counts_as_work(seen: Performance) -> None:
    """What the artist draws while the layer is being taken away is never marked as saved."""
    assert seen.facts["stroke_behind_it"] == {**seen.facts["before"], "modified": True}
    assert seen.saved("stroke_behind_it") != seen.saved("after_a_stroke")


def test_what_undo_brings_back_is_an_ordinary_layer(seen: Performance) -> None:
    """It can be painted on, and does not look as if a picture were growing in it."""
    assert seen.facts["undone"] == [["Background", False], ["a blue circle", False]]
