"""What the network thread leaves for the main thread: every event in order, but of the previews only the newest.

The main thread is woken once, however much comes before it looks. One queued signal per preview would starve Krita's
event loop when previews come faster than Krita can show them.
"""

from __future__ import annotations

import threading
from typing import Callable, Generic, List, Optional, Tuple, TypeVar

E = TypeVar("E")
P = TypeVar("P")


class Mailbox(Generic[E, P]):
    """Events of type `E`, and a latest-wins slot for a preview of type `P`. Any thread may call any method."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called in the thread that puts something in, once until the next `collect`."""
        self._wake = wake
        self._lock = threading.Lock()
        self._events: List[E] = []
        self._preview: Optional[P] = None
        self._awake = False

    def post(self, event: E) -> None:
        """Leave an event. None is ever lost."""
        with self._lock:
            self._events.append(event)
        self._wake_once()

    def show(self, preview: P) -> None:
        """Leave a preview in place of the one that was not collected."""
        with self._lock:
            self._preview = preview
        self._wake_once()

    def collect(self) -> Tuple[List[E], Optional[P]]:
        """Take everything out: the events, oldest first, and the newest preview."""
        with self._lock:
            events, preview = self._events, self._preview
            self._events, self._preview, self._awake = [], None, False
        return events, preview

    def _wake_once(self) -> None:
        with self._lock:
            asleep, self._awake = not self._awake, True
        if asleep:
            self._wake()
