"""Tests of the built-in model's language and of its tokenizer."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from primer_inpaint.captions import (
    FILL_WORDS,
    NOTHING,
    ROUND_WORDS,
    SIZES,
    THINGS,
    Subject,
    caption,
    with_unknown_words,
)
from primer_inpaint.colours import COLOURS
from primer_inpaint.paints import PAINTS
from primer_inpaint.samples import draw_sample
from primer_inpaint.shapes import SHAPES
from primer_inpaint.tokenizer import LENGTH, token_ids, train_tokenizer
from transformers import CLIPTokenizer


@cache
def _tokenizer() -> CLIPTokenizer:
    return train_tokenizer([text for number in range(40) for text in draw_sample(1, number).captions])


def test_captions_name_colour_and_thing() -> None:
    """A caption names the thing and one of the words for its colour."""
    rng = np.random.default_rng(1)
    for colour in COLOURS:
        text = caption(rng, Subject(colour, "heart", "shiny"))
        assert "heart" in text
        assert "shiny" in text
        assert any(word in text for word in (colour.name, *colour.synonyms))


def test_captions_fit() -> None:
    """The longest captions of the grammar are not cut."""
    rng = np.random.default_rng(2)
    end = _tokenizer().eos_token_id
    for number in range(200):
        subject = Subject(COLOURS[number % 12], "umbrella", "checkered", COLOURS[3], COLOURS[9])
        assert token_ids(_tokenizer(), [caption(rng, subject)])[0, -1] == end


def test_unknown_words_keep_the_colour() -> None:
    """Only the names of things are replaced by words that nobody knows."""
    rng = np.random.default_rng(3)
    words = with_unknown_words(rng, "a red umbrella").replace(",", "").split()
    assert words[:2] == ["a", "red"]
    assert "umbrella" not in words


def every_word() -> list[str]:
    """All words of the grammar."""
    words = {word for colour in COLOURS for name in (colour.name, *colour.synonyms) for word in name.split()}
    words |= {word for shape in SHAPES for words_ in shape.words for word in words_.split()}
    words |= {word for words_, _ in PAINTS.values() for word in words_ if word}
    words |= {word.strip() for word in (*ROUND_WORDS, *THINGS, *FILL_WORDS, *SIZES) if word}
    words |= {word for phrase in NOTHING for word in phrase.split()}
    words |= set(
        "a an the on in of and with painting photo picture high quality paint here solid "
        "nice beautiful one two texture pattern dark light bright blurry bad".split()
    )
    return sorted(words)


def test_every_word_has_tokens() -> None:
    """No word of the grammar is lost."""
    tokenizer = _tokenizer()
    for word in every_word():
        ids = tokenizer(word)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == word


@pytest.mark.parametrize("text", ["ein roter Kreis", "赤い丸", "красный круг", "❤️ ⭐", "دائرة حمراء", "", " ", "\0\n"])
def test_any_language(text: str) -> None:
    """Prompts in any language become tokens, and tell apart what differs."""
    ids = token_ids(_tokenizer(), [text])
    assert ids.shape == (1, LENGTH)
    assert (ids >= 0).all()
    assert (ids < len(_tokenizer())).all()


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    """Any text at all has the promised number of tokens, none of them unknown."""
    tokenizer = _tokenizer()
    ids = token_ids(tokenizer, [text])[0]
    assert ids.shape == (LENGTH,)
    assert ids[0] == tokenizer.bos_token_id
    end = int(np.argmax(ids == tokenizer.eos_token_id)) or LENGTH
    # An unknown token would be the end token, followed by others.
    assert (ids[end:] == tokenizer.eos_token_id).all()
