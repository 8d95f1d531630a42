"""Pixels rearranged without a loop over them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from underpaint_krita.pixels import BAND, set_alpha, with_red_and_blue_swapped


@pytest.mark.parametrize("count", [1, 7, BAND // 4 - 1, BAND // 4, BAND // 4 + 1, 3 * BAND // 4 + 5])
def test_red_and_blue_swap(count: int) -> None:
    """The first and third channel change places in every pixel, whichever band it lies in."""
    pixels = np.random.default_rng(count).integers(0, 256, (count, 4), np.uint8)
    swapped = np.frombuffer(with_red_and_blue_swapped(pixels.tobytes()), np.uint8).reshape(-1, 4)
    assert np.array_equal(swapped, pixels[:, [2, 1, 0, 3]])


@given(st.binary(max_size=400).map(lambda data: data[: len(data) // 4 * 4]))
def test_swapping_twice_changes_nothing(pixels: bytes) -> None:
    """It is its own inverse."""
    assert with_red_and_blue_swapped(bytes(with_red_and_blue_swapped(pixels))) == pixels


@pytest.mark.parametrize("count", [1, BAND // 4 + 1])
def test_alpha_goes_into_the_fourth_channel(count: int) -> None:
    """Colours stay, alpha is what was given."""
    generator = np.random.default_rng(count)
    pixels = generator.integers(0, 256, (count, 4), np.uint8)
    alpha = generator.integers(0, 256, count, np.uint8)
    changed = bytearray(pixels.tobytes())
    set_alpha(changed, alpha.tobytes())
    result = np.frombuffer(changed, np.uint8).reshape(-1, 4)
    assert np.array_equal(result[:, :3], pixels[:, :3])
    assert np.array_equal(result[:, 3], alpha)


def test_alpha_of_another_size_is_refused() -> None:
    """Half a mask is a mistake, not a picture."""
    with pytest.raises(ValueError, match="do not fit"):
        set_alpha(bytearray(16), b"\0" * 3)
