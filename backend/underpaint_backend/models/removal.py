"""Taking a model away again, but for what others need of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .offers import Offer, Source
from .selection import needed
from .store import Store


@dataclass(frozen=True)
class Removed:
    """What became of it: bytes that are free again, and the other models for which something was kept."""

    freed: int
    kept_for: tuple[str, ...]


def remove(offer: Offer, store: Store, others: Iterable[Offer]) -> Removed:
    """Take the files of `offer` out of the hub's cache. Of `others`, those that are whole stay so.

    Nothing outside the cache is touched, no snapshot that another program fetched, and no bytes to which one links.
    """
    freed = 0
    kept_for: dict[str, None] = {}
    neighbours = [(other.model.id, source) for other in others if other != offer for source in other.sources]
    for source in offer.sources:
        for commit in store.fetched(source):
            keep: set[str] = set()
            for name, theirs in neighbours:
                shared = _shared(source, theirs, commit, store)
                if shared:
                    kept_for[name] = None
                keep |= shared
            freed += store.remove(source, commit, keep)
    return Removed(freed, tuple(kept_for))


def _shared(source: Source, other: Source, commit: str, store: Store) -> set[str]:
    """The files that both need, if the other model has all that it needs."""
    if other.repository != source.repository or not store.is_whole(other, commit):
        return set()
    paths = store.paths(source.repository, commit)
    return set(needed(source, paths)) & set(needed(other, paths))
