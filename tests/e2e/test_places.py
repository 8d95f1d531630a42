"""Where the new layer goes, and what it does when the artist is busy elsewhere."""

from __future__ import annotations

import pytest

from .conftest import Play
from .launch import Performance


@pytest.fixture(scope="module")
def seen(play: Play) -> Performance:
    """What happened in Krita."""
    performance = play("places")
    assert performance.errors == [], performance.output
    assert (performance.boxes, performance.status) == ([], 0)
    return performance


def test_a_layer_in_a_group_gets_company_there(seen: Performance) -> None:
    """The new layer is right above the active one, in the same group, and the active one stays active."""
    assert seen.facts["group"] == ["inside", "green"]
    assert seen.facts["active_in_group"] == "inside"


def test_a_local_selection_counts(seen: Performance) -> None:
    """A selection mask of the active layer is what is painted into, though Krita does not call it the selection."""
    assert not seen.facts["global_selection"]
    assert seen.facts["local_bounds"] == [80, 60, 100, 90]


def test_nothing_is_added_to_a_mask(seen: Performance) -> None:
    """With a mask active, the new layer goes above the layer that the mask belongs to."""
    assert seen.facts["group_with_mask"] == ["inside", "green", "green"]


def test_undo_in_the_middle_stops_the_job(seen: Performance) -> None:
    """An artist who undoes the growing layer does not want the picture."""
    assert seen.facts["undone"] == {
        "state": "Stopped, because its layer was removed.",
        "unchanged": True,
        "boxes": [],
    }


def test_a_transformation_is_not_cut_off(seen: Performance) -> None:
    """Until the artist takes another tool, the picture floats above the canvas; then it gets its layer."""
    facts = seen.facts["transforming"]
    assert facts["overlay"]
    assert facts["layers"] == [["Background", False], ["paint", False]]
    assert facts["layers_after"] == [*facts["layers"], ["green", False]]
    assert not facts["overlay_after"]
    assert facts["moved"]


def test_the_picture_goes_where_it_was_begun(seen: Performance) -> None:
    """Another document in front stays as it is; the first one gets its layer."""
    assert ["green", False] in seen.facts["first"]
    assert seen.facts["second"] == [["Background", False]]
    assert seen.facts["second_untouched"]


def test_the_next_picture_is_seen(seen: Performance) -> None:
    """It goes above the one before, not between it and the layer that both were made for, which stays active."""
    again = seen.facts["again"]
    assert again["layers"] == ["Background", "first", "second"]
    assert again["active"] == "Background"
    assert again["seen"]
    assert again["steps"] == ["Add Layer", "Add Layer"]


def test_the_artists_own_layers_are_not_passed_over(seen: Performance) -> None:
    """Ours are known by what they are, not by their names; on one of ours that is active it goes directly."""
    assert seen.facts["again"]["layers_with_ink"] == ["Background", "first", "fourth", "renamed", "third", "ink"]


def test_what_was_saved_is_still_known(seen: Performance) -> None:
    """In a document that was opened again."""
    before = seen.facts["again"]["layers_with_ink"]
    assert seen.facts["again"]["layers_of_the_file"] == [*before[:-1], "fifth", "ink"]
