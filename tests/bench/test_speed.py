"""The bench of speed on tiny models, so that it cannot rot. What it says of speed means nothing here."""

from __future__ import annotations

import pytest


@pytest.mark.filterwarnings("ignore")
def test_both_sides_make_the_same_latents() -> None:
    """Both models have a row in which our loop and the classic pipeline agree."""
    from speed import measure

    rows = measure(rounds=1, steps=2, side=64, tiny=True).rows
    eager = [row for row in rows if row["transformer"] == "eager"]
    assert [row["model"] for row in eager] == ["FLUX.1 schnell", "FLUX.2 klein 4B"]
    assert all(isinstance(row["ratio"], float) for row in eager)


@pytest.mark.filterwarnings("ignore")
def test_an_eager_row_that_is_no_good_fails_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its ratio there is no figure, and 0 would pass."""
    import speed

    monkeypatch.setattr(speed, "MOST_DIFFERENCE", -1.0)
    with pytest.raises(RuntimeError, match="from the eager ones"):
        speed.measure(rounds=1, steps=1, side=64, tiny=True)
