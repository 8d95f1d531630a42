"""The tokenizer: byte-level BPE learnt from the captions, so that any text in any language works."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 32
"""Tokens of a prompt, start and end included."""
VOCABULARY = 1024
WORD_END = "</w>"
# CLIP's own way of cutting a text into words: it must be the one that `CLIPTokenizer` applies.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _merges(texts: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a BPE trained on the texts."""
    from tokenizers import Regex

    bpe = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=alphabet,
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    import json

    model = json.loads(bpe.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def train_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """A tokenizer that knows the texts' words whole and everything else by its bytes."""
    learnt, merges = _merges(texts)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Every byte also as the last of a word: otherwise unknown words would end in an unknown token.
    tokens = dict.fromkeys([*alphabet, *(letter + WORD_END for letter in alphabet), *learnt])
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=LENGTH,
    )


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> NDArray[np.int16]:
    """Token ids `[len(texts), LENGTH]`, cut or padded to `LENGTH`."""
    batch = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True)
    return np.array(batch["input_ids"], np.int16)
