"""T5's tokenizer in its first form: some repositories, and what people kept of others, have nothing but its model."""

from __future__ import annotations

import io
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import T5Tokenizer
from underpaint_backend.engine.sources import FolderSource

SENTENCES = ["a red cat sits on a mat", "the cat sees a blue bird", "birds sit on the red roof"]


def trained() -> bytes:
    """A model with the places that T5 gives to its special tokens."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        vocab_size=48,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def test_a_tokenizer_that_is_only_a_sentencepiece_model_reads_prompts(tmp_path: Path) -> None:
    """`models/store.py` takes it for whole. It cuts words as SentencePiece does, and ends with what T5 ends with."""
    (tmp_path / "tokenizer_2").mkdir()
    (tmp_path / "tokenizer_2" / "spiece.model").write_bytes(trained())
    right = SentencePieceProcessor(model_proto=trained())

    tokenizer = FolderSource(tmp_path).tokenizer("tokenizer_2", T5Tokenizer)

    for prompt in ("a red cat", "the bluebird sees 3 roofs"):
        assert tokenizer(prompt).input_ids == [*right.encode(prompt), right.eos_id()]
