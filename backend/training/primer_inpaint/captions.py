"""The sentences that ask for a picture: the model's whole language."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .colours import NamedColour

ROUND_WORDS = ("ball", "sphere", "balloon", "button", "bubble", "marble", "sun", "coin")
THINGS = tuple(
    "apple hat flower bird dress car house cat dog fish leaf lamp cup chair shirt shoe bag book "
    "rose tree boat rock stone egg fruit pillow box door window cloud butterfly bottle vase bowl "
    "plate cake candy gem toy robot mushroom pumpkin scarf blanket sofa eye nose mouth lips hair "
    "mountain river monster dragon crown ring key shell feather ribbon umbrella lemon banana "
    "cherry berry tomato pepper planet moon blob spot patch thing object shape".split()
)
FILL_WORDS = ("paint", "surface", "colour", "color", "wall", "background", "area", "fabric")
SIZES = ("", "", "", "big ", "large ", "small ", "little ")
NOTHING = ("", "", "background", "nothing", "empty", "remove", "clean background")


@dataclass(frozen=True)
class Subject:
    """What a caption speaks of. `noun` is empty where a selection is simply filled."""

    colour: NamedColour
    noun: str
    paint: str
    surroundings: NamedColour | None = None
    second: NamedColour | None = None


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _colour_word(rng: np.random.Generator, colour: NamedColour) -> str:
    if colour.synonyms and rng.random() < 0.15:
        return _pick(rng, colour.synonyms)
    return colour.name


def _with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeio" else "a ") + phrase


def _fill(rng: np.random.Generator, colour: str, paint: str) -> str:
    described = f"{paint} {colour}".strip()
    frames = (colour, described, f"solid {colour}", f"{described} {_pick(rng, FILL_WORDS)}")
    return _pick(rng, frames)


def caption(rng: np.random.Generator, subject: Subject) -> str:
    """One of the many ways to ask for the subject, at most about 20 tokens."""
    colour = _colour_word(rng, subject.colour)
    if subject.second:
        colour = f"{colour} and {_colour_word(rng, subject.second)}"
    if not subject.noun:
        return _fill(rng, colour, subject.paint)
    described = f"{_pick(rng, SIZES)}{subject.paint} {colour} {subject.noun}".replace("  ", " ")
    described = described.strip()
    named = _with_article(described)
    frames = (
        named,
        named,
        named,
        described,
        f"{subject.noun}, {subject.paint} {colour}".replace("  ", " ").replace(", ,", ","),
        f"a painting of {named}",
        f"a photo of {named}",
        f"{named}, high quality",
        f"paint {named} here",
        _with_article(f"{subject.noun} in {colour}") if not subject.paint else named,
    )
    sentence = _pick(rng, frames)
    if subject.surroundings:
        sentence += f" on a {_colour_word(rng, subject.surroundings)} background"
    return sentence


def nothing(rng: np.random.Generator) -> str:
    """A caption for a selection that is to be filled with its surroundings."""
    return _pick(rng, NOTHING)


def with_unknown_words(rng: np.random.Generator, text: str) -> str:
    """The caption with things renamed to words that nobody knows, sometimes with words added.

    So the model learns to take the colour and the shape from a prompt and to ignore the rest.
    """
    words = [_unknown_word(rng) if word in THINGS else word for word in text.split()]
    if words and rng.random() < 0.3:
        words[-1] += ","
        words += [_unknown_word(rng) for _ in range(int(rng.integers(1, 5)))]
    return " ".join(words)


def _unknown_word(rng: np.random.Generator) -> str:
    letters = rng.choice(list("aaabcdeeefghiiiklmnooprsttuvyz"), int(rng.integers(3, 9)))
    return "".join(letters.tolist())
