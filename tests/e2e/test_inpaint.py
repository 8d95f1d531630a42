"""A blue circle into a photograph, in a real Krita, with the real widgets, daemon and model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import PICTURES, ROOT, Play
from .launch import Performance


@pytest.fixture(scope="module")
def seen(play: Play) -> Performance:
    """What happened in Krita."""
    performance = play("inpaint")
    assert performance.errors == [], performance.output
    if "UNDERPAINT_SCREENSHOT" in os.environ:
        _for_the_readme(PICTURES / "while_painting.png", ROOT / os.environ["UNDERPAINT_SCREENSHOT"])
    return performance


def test_krita_ends_well(seen: Performance) -> None:
    """No box is left open, and Krita exits with 0."""
    assert (seen.boxes, seen.status) == ([], 0)


def test_previews_come_before_the_result(seen: Performance) -> None:
    """While it is locked, the layer shows at least half as many different pictures as there are steps."""
    assert seen.facts["previews"] >= seen.facts["steps"] / 2


def test_one_layer_grows(seen: Performance) -> None:
    """All previews are in one and the same layer, which becomes the result: named by the prompt, and unlocked."""
    assert seen.facts["growing_layer_is_the_result"]
    assert seen.facts["layers_after"] == [*seen.facts["layers_before"], ["a blue circle", False]]


def test_one_undo_step(seen: Performance) -> None:
    """The whole job is one step in the history."""
    assert seen.facts["history_after"] == [*seen.facts["history_before"], "Add Layer"]


def test_undo_removes_the_layer(seen: Performance) -> None:
    """That step undone, the picture is as it was."""
    assert seen.facts["layers_after_undo"] == seen.facts["layers_before"]
    assert seen.saved("after_undo") == seen.saved("before")


def test_redo_brings_the_result_back(seen: Performance) -> None:
    """That step redone, the finished picture is there again, not a preview."""
    assert seen.facts["layers_after_redo"] == seen.facts["layers_after"]
    assert seen.saved("after_redo") == seen.saved("after")


def test_active_layer_and_tool_stay(seen: Performance) -> None:
    """The artist's layer and tool are what they were."""
    assert seen.facts["active_after"] == seen.facts["active_before"]
    assert seen.facts["tool_after"] == seen.facts["tool_before"]


def test_pixels_outside_the_selection_are_identical(seen: Performance) -> None:
    """Not one bit changes where nothing was selected."""
    outside = seen.picture("mask")[..., 0] == 0
    assert outside.any()
    assert np.array_equal(seen.picture("after")[outside], seen.picture("before")[outside])


def test_the_selection_has_the_colour_of_the_prompt(seen: Performance) -> None:
    """In the middle of what was selected, blue is well above red and green, as it was not in the coffee."""
    before, after = (_blueness(seen, name) for name in ("before", "after"))
    assert after > 60 > 0 > before


def test_the_document_is_modified(seen: Performance) -> None:
    """Krita asks before it throws a finished picture away."""
    assert seen.facts["modified_after"] is True


def test_the_recipe_is_kept(seen: Performance) -> None:
    """The document remembers how the layer was painted, and no pixels."""
    (recipe,) = map(json.loads, seen.facts["recipes"])
    assert recipe["prompt"] == "a blue circle"
    assert recipe["steps"] == seen.facts["steps"]
    assert not {"image", "mask"} & set(recipe)


def test_ctrl_return_generates(seen: Performance) -> None:
    """Ctrl+Return in the prompt presses Generate and does not open Krita's own search."""
    assert seen.facts["boxes_after_ctrl_return"] == []
    assert seen.facts["layers_after_ctrl_return"] == [*seen.facts["layers_after"], ["red", False]]


def test_without_a_selection_a_whole_picture_is_made(seen: Performance) -> None:
    """With nothing selected, the new layer covers the canvas. It is right above the active one, one of ours."""
    *below, top = seen.facts["layers_after_ctrl_return"]
    assert seen.facts["layers_without_selection"] == [*below, ["green", False], top]
    assert (seen.picture("without_selection")[..., 3] == 255).all()
    assert seen.saved("without_selection") != seen.saved("after")


def _for_the_readme(taken: Path, target: Path) -> None:
    """Save the part of the screen that Krita is on, in fewer colours."""
    with Image.open(taken) as picture:
        window = picture.convert("RGB").crop((0, 0, 1280, 800))
    target.parent.mkdir(parents=True, exist_ok=True)
    few_colours = window.quantize(256)
    window.quantize(palette=few_colours, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


def _blueness(seen: Performance, name: str) -> float:
    """How much more blue there is than green and red, on average in the selection's middle; 0 to 255."""
    selected = seen.picture("mask")[..., 0] == 255
    blue, green, red, _ = seen.picture(name)[selected].mean(axis=0)
    return float(blue - max(green, red))
