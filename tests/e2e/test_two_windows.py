"""Krita with more than one window."""

from __future__ import annotations

import pytest

from .conftest import Play
from .launch import Performance


@pytest.fixture(scope="module")
def seen(play: Play) -> Performance:
    """What happened in Krita."""
    performance = play("two_windows")
    assert performance.errors == [], performance.output
    return performance


def test_a_layer_that_begins_behind_gives_the_artists_layer_back(seen: Performance) -> None:
    """Krita refuses that while another window is in front; so it is tried again when its own window is."""
    assert seen.facts["active_behind"] == "behind…"
    assert seen.facts["given_back"]


def test_two_layers_that_begin_in_a_moment_give_the_artists_layer_back(seen: Performance) -> None:
    """The second one does not take the first, which Krita has just made active, for the artist's."""
    assert seen.facts["given_back_twice"]


def test_a_layer_that_was_removed_is_not_made_active(seen: Performance) -> None:
    """Krita would be left without an active layer."""
    assert seen.facts["active_is_left"]
