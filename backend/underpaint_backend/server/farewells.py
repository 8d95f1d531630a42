"""Which of the jobs that have ended go first, where not all can be kept until their clients come for them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from heapq import heapify, heappop, heappush

from .sessions import Job

Pinned = Callable[[Iterable[bytes]], Mapping[bytes, tuple[int, int]]]
"""Of some tiles, how often each is pinned, and how many slots it takes."""


class Return:
    """What a store gets back if the pictures of some jobs go. None of them goes yet."""

    def __init__(self, pinned: Pinned, needed: Container[bytes]) -> None:
        """Tiles that are `needed` all the same give nothing back."""
        self.slots = 0
        self._pinned = pinned
        self._needed = needed
        self._gone: dict[bytes, int] = {}
        """How many of the pins of each tile would be gone."""

    def add(self, job: Job) -> None:
        """Let it go, too."""
        self._change(job, 1)

    def remove(self, job: Job) -> None:
        """Let it stay after all."""
        self._change(job, -1)

    def _change(self, job: Job, by: int) -> None:
        for name, (pins, slots) in self._pinned(job.result_pins).items():
            gone = self._gone.get(name, 0)
            self._gone[name] = gone + by
            if max(gone, gone + by) == pins and name not in self._needed:
                self.slots += by * slots


def leaving_for_room(
    ended: Iterable[Job],
    takes: Mapping[str, int],
    back: Return,
    short: int,
    asker: str | None = None,
    more: int = 0,
) -> list[Job] | None:
    """The jobs whose pictures give `short` slots of the store back, none of them in vain; None if there are too few.

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
    while back.slots < short and most:
        slots, foreign, owner = heappop(most)
        if foreign and -slots < asker_takes:
            break  # Of the asker himself there is nothing left.
        job = left[owner].pop()
        leaving.append(job)
        back.add(job)
        if not foreign:
            asker_takes -= job.slots_of_results
        if left[owner]:
            heappush(most, (slots + job.slots_of_results, foreign, owner))
    return _none_in_vain(leaving, back) if back.slots >= short else None


def least_wanted_first(ended: Iterable[Job]) -> list[Job]:
    """First those that have no picture, then what nobody may be fetching; of those, what ended first."""
    return sorted(ended, key=_worth)


def _none_in_vain(leaving: Iterable[Job], back: Return) -> list[Job]:
    """Those of which something comes back: not whose tiles others of them, or who stays, have too."""
    useful = []
    for job in reversed([*leaving]):
        before = back.slots
        back.remove(job)
        if back.slots < before:
            back.add(job)
            useful.append(job)
    return useful[::-1]


def _worth(job: Job) -> tuple[bool, bool, float]:
    return bool(job.result_pins), job.session.outbox is not None, job.ended_at or 0.0
