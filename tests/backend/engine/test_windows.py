"""Large pictures, a window at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from underpaint_backend.engine.library import LoadedModel
from underpaint_backend.engine.windows import blended, side_for, windows

from tests.backend.engine.test_painting import PAINTING, painted


@pytest.mark.parametrize("multiple", [1, 2])
@pytest.mark.parametrize("side", [(16, 16), (8, 24), (40, 56)])
@pytest.mark.parametrize("size", [(40, 56), (16, 128), (18, 18)])
def test_windows_cover_everything_and_overlap(size: tuple[int, int], side: tuple[int, int], multiple: int) -> None:
    """Every cell is in a window, neighbours share a quarter, and all are of one size on the grid of multiples."""
    parts = windows(size, side, multiple)
    covered = np.zeros(size, int)
    for window in parts:
        window.of(covered)[...] += 1  # type: ignore[arg-type]
        assert (window.height, window.width) == (min(size[0], side[0]), min(size[1], side[1]))
        assert window.top % multiple == window.left % multiple == 0
    assert covered.min() >= 1
    lefts = sorted({window.left for window in parts})
    for before, after in pairwise(lefts):
        assert before + parts[0].width - after >= parts[0].width // 4 - multiple


def test_what_looks_at_one_cell_alone_is_as_in_the_whole() -> None:
    """Blending adds up to one everywhere, also at another scale."""
    whole = torch.rand(2, 3, 40, 56)
    large = torch.rand(2, 3, 80, 112)
    parts = windows((40, 56), (16, 16))

    torch.testing.assert_close(blended(parts, (40, 56), lambda part: part.of(whole)), whole)
    torch.testing.assert_close(blended(parts, (40, 56), lambda part: part.of(large, 2), 2), large)


def test_where_windows_disagree_there_is_no_seam() -> None:
    """Windows that say something else each are led over into one another: no cell is far from its neighbour."""
    parts = windows((16, 64), (16, 16))

    def said(window: object) -> Tensor:
        return torch.full((1, 1, 16, 16), float(parts.index(window)))  # type: ignore[arg-type]

    found = blended(parts, (16, 64), said)[0, 0]

    assert float((found[:, 1:] - found[:, :-1]).abs().max()) < 0.5
    assert float(found[0, 0]) == 0
    assert float(found[0, -1]) == len(parts) - 1


@pytest.mark.parametrize(
    ("size", "area", "multiple", "expected"),
    [((64, 64), 32 * 32, 1, (32, 32)), ((16, 256), 32 * 32, 1, (16, 64)), ((256, 16), 1024, 2, (64, 16))],
)
def test_windows_have_the_area_that_was_trained(
    size: tuple[int, int], area: int, multiple: int, expected: tuple[int, int]
) -> None:
    """They are squares, unless the picture is narrower."""
    assert side_for(size, area, multiple) == expected


@pytest.mark.parametrize("channels", [4, 9])
def test_large_pictures_are_painted_in_windows(
    load_tiny: Callable[[int], LoadedModel], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the trained area is seen in windows of the trained size, always in the same way, without a seam."""
    model = load_tiny(channels)
    painting = replace(PAINTING, size=(128, 128), source=None, steps=3, guidance=1.0)
    seen: list[tuple[int, ...]] = []
    unet = model.family.parts["unet"]
    own = unet.forward
    monkeypatch.setattr(
        unet, "forward", lambda latents, *rest, **more: (seen.append(latents.shape), own(latents, *rest, **more))[1]
    )

    first, second = painted(model, painting), painted(model, painting)

    np.testing.assert_array_equal(first, second)
    assert {shape[-2:] for shape in seen} == {(16, 16)}
    assert len(seen) == 2 * 3 * 9
    # where a window begins, colours change no more than elsewhere
    steps = np.abs(np.diff(first[0].astype(int), axis=1)).mean(axis=(0, 2))
    begins = sorted({window.left * model.latent_scale for window in windows((32, 32), (16, 16), 2)})[1:]
    assert max(steps[begin - 1] for begin in begins) < 1.5 * np.percentile(steps, 95)


def test_large_pictures_are_decoded_in_tiles(tiny_plain: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a bound the VAE sees tiles, without anybody running out of memory."""
    from underpaint_backend.engine import painting as module

    painting = replace(PAINTING, size=(64, 128), source=None, steps=1)
    expected = painted(tiny_plain, painting)
    monkeypatch.setattr(module, "WHOLE_AREA", 64 * 64)
    monkeypatch.setattr(module, "TILE", 64)
    sizes: list[tuple[int, ...]] = []
    own = tiny_plain.family.decode
    monkeypatch.setattr(tiny_plain.family, "decode", lambda latents: (sizes.append(latents.shape), own(latents))[1])
    found = painted(tiny_plain, painting)

    assert {size[-2:] for size in sizes} == {(16, 16)}
    assert np.abs(found.astype(int) - expected.astype(int)).mean() < 8
