"""What Underpaint cannot do, it says in a sentence."""

from __future__ import annotations

import pytest

from .conftest import Play
from .launch import Performance


@pytest.fixture(scope="module")
def seen(play: Play) -> Performance:
    """What happened in Krita."""
    performance = play("refusals")
    assert performance.errors == [], performance.output
    assert (performance.boxes, performance.status) == ([], 0)
    return performance


@pytest.mark.parametrize(
    ("fact", "sentence"),
    [
        ("no_document", "There is no picture to paint into."),
        ("sixteen_bits", "Underpaint needs a picture in RGB with 8 bits per channel; this one is RGBA with 16 bits."),
        ("outside", "The selection lies outside the canvas."),
        ("single_pixel", "The selection is too small to paint into: 1 x 1 pixels."),
        ("unknown_model", "There is no model called “no-such-model” here."),
        ("wrong_token", "The daemon did not accept the token."),
    ],
)
def test_a_sentence(seen: Performance, fact: str, sentence: str) -> None:
    """The docker's line says what is wrong, and no box opens."""
    assert seen.facts[fact]["state"].startswith(sentence)
    assert seen.facts[fact]["boxes"] == []


def test_a_refused_document_is_untouched(seen: Performance) -> None:
    """A picture with 16 bits keeps its layers, history, pixels and modified flag."""
    assert "Nothing was changed." in seen.facts["sixteen_bits"]["state"]
    assert seen.facts["sixteen_bits_untouched"]


def test_an_empty_prompt_is_allowed(seen: Performance) -> None:
    """Without a word, the model fills in what fits; the layer is called after Underpaint."""
    assert seen.facts["layers_of_empty_prompt"] == [*seen.facts["layers_before"], ["Underpaint", False]]


def test_the_right_token_works_again(seen: Performance) -> None:
    """With an empty token the plugin finds the one of this machine by itself."""
    assert seen.facts["right_token"].startswith("Ready")
