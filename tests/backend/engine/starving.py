"""Memory that runs out where a test wants it to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Starved:
    """Calls `work` unless `is_too_much` says that it would need too much; then it is as if the allocator had failed."""

    def __init__(self, work: Callable[..., Any], is_too_much: Callable[..., bool]) -> None:
        self.work = work
        self.is_too_much = is_too_much
        self.failures = 0

    def __call__(self, *given: Any, **more: Any) -> Any:
        if self.is_too_much(*given, **more):
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")
        return self.work(*given, **more)
