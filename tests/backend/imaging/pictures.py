"""Strategies for pictures and masks."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

sides = st.integers(1, 40)
sizes = st.tuples(sides, sides)


def pictures(size: tuple[int, int], channels: int) -> st.SearchStrategy[NDArray[np.uint8]]:
    """Pictures of a size (width, height)."""
    return arrays.arrays(np.uint8, (size[1], size[0], channels))


def masks(size: tuple[int, int]) -> st.SearchStrategy[NDArray[np.uint8]]:
    """Masks of a size (width, height), often with nothing and everything selected."""
    values = st.one_of(st.sampled_from([0, 255]), st.integers(0, 255))
    return arrays.arrays(np.uint8, (size[1], size[0]), elements=values)
