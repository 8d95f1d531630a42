"""Which of the jobs that have ended go first, where not all can be kept until their clients come for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

from .sessions import Job


def leaving_for_room(
    ended: Iterable[Job], takes: Mapping[str, int], short: int, asker: str | None = None, more: int = 0
) -> list[Job]:
    """The jobs whose pictures give `short` slots of the store back; empty if there are not enough.

    `takes` says how many slots each owner has and will have; `asker` would take so many `more`. One picture after
    another goes of whoever would take most, and none of who takes less than `asker` does already.
    """
    left: dict[str, list[Job]] = {}
    for job in reversed(least_wanted_first(job for job in ended if job.slots_of_results)):
        left.setdefault(job.session.owner, []).append(job)
    most = [(-takes[owner] - (more if owner == asker else 0), owner != asker, owner) for owner in left]
    heapify(most)
    asker_takes = takes[asker] if asker is not None else 0
    leaving: list[Job] = []
    while short > 0 and most:
        slots, foreign, owner = heappop(most)
        if foreign and -slots < asker_takes:
            break  # Of the asker himself there is nothing left.
        job = left[owner].pop()
        leaving.append(job)
        short -= job.slots_of_results
        if not foreign:
            asker_takes -= job.slots_of_results
        if left[owner]:
            heappush(most, (slots + job.slots_of_results, foreign, owner))
    return leaving if short <= 0 else []


def least_wanted_first(ended: Iterable[Job]) -> list[Job]:
    """First those that have no picture, then what nobody may be fetching; of those, what ended first."""
    return sorted(ended, key=_worth)


def _worth(job: Job) -> tuple[bool, bool, float]:
    return bool(job.result_pins), job.session.outbox is not None, job.ended_at or 0.0
