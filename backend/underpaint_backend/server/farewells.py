"""Which of the jobs that have ended goes first, where not all can be kept until their clients come for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .sessions import Job


def first_for_room(ended: Iterable[Job]) -> Job | None:
    """Of whoever's pictures take most room, the job that ended first; those of a client that is there go last.

    It may be fetching them. None if no picture takes any room.
    """
    with_pixels = [job for job in ended if job.result_pins]
    held = Counter[str]()
    for job in with_pixels:
        held[job.session.owner] += len(job.result_pins)
    if not held:
        return None
    (owner, _), *_ = held.most_common(1)
    return least_wanted(job for job in with_pixels if job.session.owner == owner)


def least_wanted(ended: Iterable[Job]) -> Job | None:
    """First what has no picture, then what nobody may be fetching, of those what ended first; None if there is none."""
    return min(ended, key=_worth, default=None)


def _worth(job: Job) -> tuple[bool, bool, float]:
    return bool(job.result_pins), job.session.outbox is not None, job.ended_at or 0.0
