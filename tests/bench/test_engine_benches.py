"""Small runs of the benches of the engine, so that they cannot rot. What they say of speed means nothing here."""

from __future__ import annotations

from pathlib import Path


def test_cache() -> None:
    """Prompts a, b, a are encoded twice, and two models that fit are read twice in all."""
    from cache import measure

    figure = measure(steps=1)
    values = {str(row["what"]): row["value"] for row in figure.rows}

    assert values["text encodings for prompts a, b, a"] == 2
    assert values["models read from the disk, of two that take 3 turns each"] == 2
    assert figure.value < 1


def test_cancel(tiny_models: Path) -> None:
    """Both tiny models are cancelled in all five places."""
    from cancel import entries_in, measure

    figure = measure(entries_in(tiny_models), runs=1, side=64)

    assert len(figure.rows) == 10
    assert 0 < figure.value < 2000
