"""Above which layer the next picture goes."""

from __future__ import annotations

import pytest
from underpaint_krita.stacking import above_own_run

OURS = {"first", "second", "third"}


@pytest.mark.parametrize(
    ("layers", "active", "above"),
    [
        (["ground"], "ground", "ground"),
        (["ground", "first"], "ground", "first"),
        (["ground", "first", "second", "ink"], "ground", "second"),
        (["ground", "ink", "first"], "ground", "ground"),
        (["ground", "first", "ink", "second"], "ground", "first"),
        (["first", "ground", "second"], "ground", "second"),
        (["ground", "ink"], "ink", "ink"),
    ],
)
def test_on_top_of_what_was_painted_before(layers: list[str], active: str, above: str) -> None:
    """Of the unbroken run of our own layers on the active one; a layer of the artist's ends it."""
    assert above_own_run(layers, active, OURS) == above


@pytest.mark.parametrize("active", ["first", "second", "third"])
def test_on_an_own_layer_it_goes_directly(active: str) -> None:
    """An artist who chose one of ours means that one."""
    assert above_own_run(["ground", "first", "second", "third"], active, OURS) == active
