"""Closing things in the middle."""

from __future__ import annotations

import pytest

from .conftest import Play
from .launch import Performance


@pytest.fixture(scope="module")
def seen(play: Play) -> Performance:
    """What happened in Krita."""
    performance = play("closing")
    assert performance.errors == [], performance.output
    return performance


def test_closing_the_document_raises_no_box(seen: Performance) -> None:
    """The job stops, and nothing is asked or complained about."""
    assert seen.facts["boxes_after_document"] == []
    assert seen.facts["state_after_document"] == "Stopped, because the document was closed."


def test_closing_the_document_leaves_the_daemon_free(seen: Performance) -> None:
    """The next document can be painted into."""
    assert seen.facts["painting_again"].startswith("Painting")


def test_closing_krita_ends_it_well(seen: Performance) -> None:
    """Krita exits with 0 in the middle of a job."""
    assert (seen.boxes, seen.status) == ([], 0)
