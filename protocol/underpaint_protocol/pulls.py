"""Models on their way to the server, as the client sees it."""

from __future__ import annotations

from typing import Dict, Iterable

from .fields import Record
from .messages import Error, Pull, Pulling

REFUSALS = ("may_not_fetch", "unknown_model", "model_unfit", "shutting_down")
"""Codes of the errors that answer a `pull`; they name no job, and no model."""


def is_over(pulling: Pulling) -> bool:
    """Whether nothing more is said of this download, well or not."""
    return pulling.stopped or pulling.error is not None or pulling.done == pulling.total


class Pulls:
    """What was asked for and not answered, which is said again if the connection is lost in between."""

    def __init__(self) -> None:
        self._wishes: Dict[str, Pull] = {}

    def wish(self, pull: Pull) -> None:
        """Keep a wish, in place of an older one for the same model."""
        self._wishes[pull.model] = pull

    def open(self) -> Iterable[Pull]:
        """What to say on a new connection."""
        return tuple(self._wishes.values())

    def hear(self, answer: Record) -> None:
        """The server said something that may answer a wish."""
        if isinstance(answer, Pulling):
            wish = self._wishes.get(answer.model)
            if wish is not None and (not wish.stop or is_over(answer)):  # News from before a stop do not answer it.
                del self._wishes[answer.model]
        elif isinstance(answer, Error) and answer.job is None and answer.error.code in REFUSALS:
            self._wishes.clear()
