"""What can go wrong with models on their way here.

ModelError         ─ with the error as it travels, from the table in the protocol
DownloadCancelled  ─ somebody said stop; what came so far is kept
"""

from __future__ import annotations

from underpaint_protocol.errors import ErrorInfo, describe


class ModelError(Exception):
    """A model cannot be fetched, checked or removed; `info` says why, and what to do."""

    def __init__(self, code: str, **places: object) -> None:
        self.info: ErrorInfo = describe(code, **places)
        super().__init__(self.info.message)


class DownloadCancelled(Exception):
    """A download was stopped as asked."""
