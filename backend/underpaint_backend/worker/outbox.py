"""Messages to the server, written by several threads."""

from __future__ import annotations

import contextlib
from threading import Lock
from typing import BinaryIO

from underpaint_protocol.fields import Record

from .interface import frame


class Outbox:
    """The way out of a worker. What one call sends is not mixed with what others send."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = Lock()

    def send(self, *messages: Record) -> None:
        """Write messages, in order. If nobody reads any more, nothing happens: the inbox will end the process."""
        with self._lock, contextlib.suppress(OSError):
            for message in messages:
                self._stream.write(frame(message))
            self._stream.flush()
