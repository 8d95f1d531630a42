"""The cache of tensors."""

from __future__ import annotations

import pytest
import torch
from underpaint_backend.engine.cache import TensorCache


def test_what_was_made_once_is_not_made_again() -> None:
    """The second time, the tensor is found."""
    cache: TensorCache[torch.Tensor] = TensorCache(1000)
    first = cache.get("a", lambda: torch.ones(4))

    assert cache.get("a", lambda: pytest.fail("it was made again")) is first


def test_the_least_recently_used_goes_first() -> None:
    """Beyond the bound, the tensor that was not used for longest is dropped."""
    cache: TensorCache[torch.Tensor] = TensorCache(2 * 400)
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda: torch.zeros(100))

    assert (cache.bytes, len(cache)) == (800, 2)
    assert float(cache.get("a", lambda: torch.ones(100))[0]) == 0
    assert float(cache.get("b", lambda: torch.ones(100))[0]) == 1


def test_what_is_too_large_is_not_kept() -> None:
    """A tensor larger than the whole bound drops nothing."""
    cache: TensorCache[torch.Tensor] = TensorCache(400)
    cache.get("small", lambda: torch.zeros(100))
    cache.get("large", lambda: torch.zeros(101))

    assert len(cache) == 1


def test_tuples_count_with_all_their_tensors() -> None:
    """Where a value is several tensors, all of them count."""
    cache: TensorCache[tuple[torch.Tensor, ...]] = TensorCache(1000)
    cache.get("pair", lambda: (torch.zeros(100), torch.zeros(50)))

    assert cache.bytes == 600
