"""Cancelling at a place that can be chosen."""

from __future__ import annotations

from threading import Event


class SetAfter(Event):
    """An event that is set once it was asked so many times."""

    def __init__(self, asked: float) -> None:
        super().__init__()
        self.left = asked
        self.asked = 0

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > self.left
