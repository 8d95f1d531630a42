"""When to try to connect again, and when it is no use any more."""

from __future__ import annotations

import time
from typing import Callable, Optional

from .backoff import Backoff

STEADY = 15.0
"""Seconds for which a connection must have lasted before the next loss counts as a first one."""
GRACE = 300.0
"""Seconds for which a lost connection is tried again while nothing waits for it."""


class Redial:
    """The time of the next attempt. Its clock is monotonic."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._backoff = Backoff()
        self._since = 0.0
        self._due: Optional[float] = None
        self._until: Optional[float] = None

    @property
    def remaining(self) -> Optional[float]:
        """Seconds until the next attempt; None if there is none to come."""
        return None if self._due is None else max(0.0, self._due - self._now())

    def begin(self) -> None:
        """The artist wants a connection: all that went wrong before is forgotten."""
        self._backoff.reset()
        self._due = self._until = None

    def connected(self) -> None:
        """There is a connection."""
        self._since, self._due = self._now(), None

    def lost(self) -> None:
        """The connection is gone."""
        if self._until is None or self._now() - self._since >= STEADY:
            self._backoff.reset()
            self._until = self._now() + GRACE

    def again(self, wanted: bool) -> Optional[float]:
        """Seconds until the next attempt, which is noted; None if it is not worth it.

        While something waits for it (`wanted`) it always is; otherwise for `GRACE` after a connection was lost.
        """
        if not wanted and (self._until is None or self._now() > self._until):
            self._due = None
            return None
        return self.after(self._backoff.next())

    def after(self, seconds: float) -> float:
        """Try again in so many seconds."""
        self._due = self._now() + seconds
        return seconds

    def stop(self) -> None:
        """No attempt is to come."""
        self._due = None
