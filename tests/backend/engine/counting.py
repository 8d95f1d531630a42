"""Work that is counted while it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Counted:
    """Calls `work`; `calls` are what it was given each time."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *given: Any) -> Any:
        self.calls.append(given)
        return self.work(*given)
