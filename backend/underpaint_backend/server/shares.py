"""What the jobs of each token that have not ended take of the store of tiles, with the room for their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .sessions import Job


class _Share:
    """What some jobs take. A tile that several of them need counts once."""

    def __init__(self) -> None:
        self.slots = 0
        self._jobs: Counter[bytes] = Counter()
        """How many of them need each tile."""

    def more(self, needs: Mapping[bytes, int], pictures: int) -> int:
        """Slots that another job of these tiles, and of so many slots of pictures, would add."""
        return pictures + sum(slots for name, slots in needs.items() if name not in self._jobs)

    def add(self, needs: Mapping[bytes, int], pictures: int) -> None:
        """One more job."""
        self.slots += self.more(needs, pictures)
        self._jobs.update(needs.keys())

    def remove(self, needs: Mapping[bytes, int], pictures: int) -> None:
        """One job less."""
        self._jobs.subtract(needs.keys())
        for name in needs:
            if not self._jobs[name]:
                del self._jobs[name]
        self.slots -= self.more(needs, pictures)


class Shares:
    """Slots of the store, by owner and of all. A tile that several jobs need counts once for each, and once for all."""

    def __init__(self) -> None:
        self._needs: dict[Job, Mapping[bytes, int]] = {}
        self._all = _Share()
        self._owners: dict[str, _Share] = {}
        self._none = _Share()

    def __iter__(self) -> Iterator[Job]:
        """The jobs that count."""
        return iter(self._needs)

    def of(self, owner: str) -> int:
        """What the jobs of `owner` take."""
        return self._owners.get(owner, self._none).slots

    def by_owner(self) -> Counter[str]:
        """What the jobs of each owner take."""
        return Counter({owner: share.slots for owner, share in self._owners.items()})

    def with_another(self, owner: str, needs: Mapping[bytes, int], pictures: int) -> tuple[int, int]:
        """What the jobs of `owner`, and of all, would take with another one, with so many slots of pictures."""
        mine = self._owners.get(owner, self._none)
        return mine.slots + mine.more(needs, pictures), self._all.slots + self._all.more(needs, pictures)

    def add(self, job: Job, needs: Mapping[bytes, int]) -> None:
        """The job counts, with tiles of so many slots each, until it is removed."""
        for share in (self._owners.setdefault(job.session.owner, _Share()), self._all):
            share.add(needs, job.slots_of_all_results)
        self._needs[job] = needs

    def remove(self, job: Job) -> None:
        """The job needs nothing any more. Twice does no harm."""
        needs = self._needs.pop(job, None)
        if needs is None:
            return
        for share in (self._owners[job.session.owner], self._all):
            share.remove(needs, job.slots_of_all_results)

    @contextmanager
    def without(self, job: Job | None) -> Iterator[None]:
        """As if this job had ended already, if it counts."""
        needs = None if job is None else self._needs.get(job)
        if job is None or needs is None:
            yield
            return
        self.remove(job)
        try:
            yield
        finally:
            self.add(job, needs)
