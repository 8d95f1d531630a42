"""Drawing while Underpaint paints."""

from __future__ import annotations

import numpy as np
import pytest

from .conftest import Play
from .launch import Performance

REACH = 3
"""Pixels around a place of the stroke in which its ink must be found; the brush is 12 wide."""


@pytest.fixture(scope="module")
def seen(play: Play) -> Performance:
    """What happened in Krita."""
    performance = play("stroke")
    assert performance.errors == [], performance.output
    assert performance.facts["steps_seen"], "the job was not running during the stroke"
    assert performance.facts["job_ended_during_the_stroke"], "the job outlasted the canvas"
    return performance


def test_a_stroke_keeps_all_its_ink(seen: Performance) -> None:
    """Wherever the pen was, from before the first preview until after the result, there is ink."""
    ink = seen.picture("ink")[..., 3]
    dry = [(x, y) for x, y in seen.facts["drawn"] if not _around(ink, x, y).any()]
    assert dry == []


def test_the_stroke_is_one_step(seen: Performance) -> None:
    """The history has the layer, the stroke, and what the artist did between them, each once."""
    new = seen.facts["history_after"][len(seen.facts["history_before"]) :]
    assert sorted(new) == ["Add Layer", "Deselect", "Freehand Brush Stroke"]


def test_previews_float_above_the_canvas_during_a_stroke(seen: Performance) -> None:
    """While the layer may not be touched, previews are shown without it."""
    assert seen.facts["overlay_pictures"] >= 3


def test_the_result_is_in_its_layer_after_the_stroke(seen: Performance) -> None:
    """When the pen is lifted the picture moves into its layer, and the artist's layer stays the active one."""
    assert ["a blue circle", False] in seen.facts["layers"]
    assert seen.picture("result")[..., 3].any()
    assert seen.facts["active"] == "ink"


def _around(ink: np.ndarray, x: int, y: int) -> np.ndarray:
    return ink[max(0, y - REACH) : y + REACH + 1, max(0, x - REACH) : x + REACH + 1]
