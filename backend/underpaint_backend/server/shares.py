"""What the jobs of each token that have not ended take of the store of tiles, with the room for their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from .sessions import Job


class Shares:
    """Slots of the store by owner. A tile that several jobs of one owner need counts once."""

    def __init__(self) -> None:
        self._needs: dict[Job, Mapping[bytes, int]] = {}
        self._tiles: dict[str, Counter[bytes]] = {}
        """How many jobs of each owner need each tile."""
        self._slots: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Job]:
        """The jobs that count."""
        return iter(self._needs)

    def of(self, owner: str) -> int:
        """What the jobs of `owner` take."""
        return self._slots[owner]

    def all(self) -> Counter[str]:
        """What the jobs of each owner take."""
        return self._slots.copy()

    def with_another(self, owner: str, needs: Mapping[bytes, int], pictures: int) -> int:
        """What the jobs of `owner` would take with another one, of these tiles and of so many slots of pictures."""
        tiles = self._tiles.get(owner, ())
        return self._slots[owner] + pictures + sum(slots for name, slots in needs.items() if name not in tiles)

    def add(self, job: Job, needs: Mapping[bytes, int]) -> None:
        """The job counts, with tiles of so many slots each, until it is removed."""
        owner = job.session.owner
        self._slots[owner] = self.with_another(owner, needs, job.slots_of_all_results)
        self._tiles.setdefault(owner, Counter()).update(needs.keys())
        self._needs[job] = needs

    def remove(self, job: Job) -> None:
        """The job needs nothing any more. Twice does no harm."""
        needs = self._needs.pop(job, None)
        if needs is None:
            return
        owner = job.session.owner
        tiles = self._tiles[owner]
        tiles.subtract(needs.keys())
        unneeded = [name for name in needs if not tiles[name]]
        for name in unneeded:
            del tiles[name]
        self._slots[owner] -= job.slots_of_all_results + sum(needs[name] for name in unneeded)
