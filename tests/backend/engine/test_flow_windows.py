"""Flow models above the area that they were trained at: windows where they are sound, and the whole where not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from parities import flux1
from parities.flux1 import TEXT
from parities.tiny_flux1 import tiny_flux1
from parities.tiny_flux2 import build_tiny_flux2
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Painting, Source
from underpaint_backend.engine.windows import windows

from tests.backend.engine.test_painting import painted

WIDTH, HEIGHT = 160, 128
PAINTING = Painting((WIDTH, HEIGHT), "a red cat", "", 3.5, "euler", 2, 1.0, (3,))


def tokens_seen(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens the transformer is given at each call from now on."""
    transformer: Any = model.family.parts["transformer"]
    own, seen = transformer.forward, []

    def forward(*given: Any, **named: Any) -> Any:
        seen.append((given[0] if given else named["hidden_states"]).shape[1])
        return own(*given, **named)

    monkeypatch.setattr(transformer, "forward", forward)
    return seen


def references(variant: str) -> tuple[Any, ...]:
    """One reference picture."""
    return tuple(flux1.references_of(variant, replace(TEXT, references=1)))


def masked() -> Source:
    """A large canvas with a soft selection."""
    drawn = np.random.default_rng(1)
    coverage = np.zeros((HEIGHT, WIDTH), np.float32)
    coverage[20:110, 10:150] = 0.7
    return Source(drawn.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), coverage)


@pytest.mark.parametrize("variant", ["schnell", "dev", "fill", "redux", "kontext"])
def test_flux1_paints_large_pictures_in_windows(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the trained area and on the grid of tokens; the picture has the size that was asked for, and no seam."""
    model = tiny_flux1(variant)
    seen = tokens_seen(model, monkeypatch)
    more: dict[str, Any] = {"references": references(variant)} if variant == "redux" else {}
    if variant == "fill":
        more = {"source": masked()}
    painting = replace(PAINTING, **more)
    first, second = painted(model, painting), painted(model, painting)

    assert first.shape == (1, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(first, second)
    scale = model.latent_scale
    parts = windows((HEIGHT // scale, WIDTH // scale), (64 // scale, 64 // scale), 16 // scale)
    assert set(seen) == {(64 // 16) ** 2}
    assert len(seen) == 2 * 2 * len(parts)
    changes = np.abs(np.diff(first[0].astype(int), axis=1)).mean(axis=(0, 2))
    begins = sorted({window.left * scale for window in parts})[1:]
    assert max(changes[begin - 1] for begin in begins) < 1.5 * np.percentile(changes, 95)


def test_references_that_lie_beside_the_picture_keep_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kontext looks up in a reference what lies at the same place, which a window would have elsewhere."""
    model = tiny_flux1("kontext")
    seen = tokens_seen(model, monkeypatch)
    painted(model, replace(PAINTING, references=references("kontext")))

    [count] = set(seen)
    assert count > WIDTH * HEIGHT // 16**2


def test_flux2_sees_large_pictures_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was trained at every size up to 4 megapixels."""
    entry, _ = build_tiny_flux2(tmp_path / "klein", "klein")
    model = Library(open_device("cpu")).load(entry, lambda done: None, Event())
    assert 1.5 * model.description.native_area < WIDTH * HEIGHT
    seen = tokens_seen(model, monkeypatch)
    found = painted(model, PAINTING)

    assert found.shape == (1, HEIGHT, WIDTH, 3)
    assert set(seen) == {WIDTH * HEIGHT // model.latent_scale**2}
