"""Whose turn it is: round robin between owners, within an owner between its sessions, and in order within a session.

An owner that waits for a job gets one after at most one of every other owner's (and what warmth lets go before,
below), however many jobs those have. An entry whose model is loaded already may go before its turn, within a bound.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T", bound=Hashable)
Line: TypeAlias = "OrderedDict[T, int]"
"""The entries of one session, first come first; each with how often others were preferred to it."""


class Turns(Generic[T]):
    """What waits, and in which order it goes. An entry is hashable, and its owner, session and model stay the same.

    Owners stand in a ring, each with a ring of its sessions; who had a turn goes to the end of both. `OrderedDict`
    takes out anything, and moves it to the end, in constant time; so does `remove` and nearly so `take`.
    """

    def __init__(
        self,
        owner_of: Callable[[T], Hashable],
        session_of: Callable[[T], Hashable],
        model_of: Callable[[T], str],
        warm_window: int = 4,
    ) -> None:
        self.warm_window = warm_window
        self._owner_of = owner_of
        self._session_of = session_of
        self._model_of = model_of
        self._put_back: Line[T] = OrderedDict()
        self._owners: OrderedDict[Hashable, OrderedDict[Hashable, Line[T]]] = OrderedDict()

    def __len__(self) -> int:
        lines = (line for sessions in self._owners.values() for line in sessions.values())
        return len(self._put_back) + sum(map(len, lines))

    def __iter__(self) -> Iterator[T]:
        return iter(self.order())

    def __contains__(self, entry: T) -> bool:
        sessions = self._owners.get(self._owner_of(entry), OrderedDict())
        return entry in self._put_back or entry in sessions.get(self._session_of(entry), ())

    def add(self, entry: T) -> None:
        """Let an entry wait behind all of its session. Raises `ValueError` if it waits already."""
        self._refuse_twice(entry)
        sessions = self._owners.setdefault(self._owner_of(entry), OrderedDict())
        sessions.setdefault(self._session_of(entry), OrderedDict())[entry] = 0

    def put_back(self, entry: T) -> None:
        """Let an entry go first again, behind others that were put back. Raises `ValueError` if it waits already.

        It had its turn, so it costs its owner no other one, and nothing is preferred to it.
        """
        self._refuse_twice(entry)
        self._put_back[entry] = 0

    def remove(self, entry: T) -> bool:
        """Take an entry out; false if it does not wait. The others keep their order."""
        if entry not in self:
            return False
        if self._put_back.pop(entry, None) is None:
            self._pop(entry)
        return True

    def take(self, warm: Collection[str]) -> T | None:
        """The entry whose turn it is; None if none waits.

        The first of the next `warm_window` whose model is in `warm` may go before those ahead of it, unless one of
        these was passed over `warm_window` times already.
        """
        if self._put_back:
            return self._put_back.popitem(last=False)[0]
        ahead = list(islice(self._rounds(), max(1, self.warm_window)))
        if not ahead:
            return None
        place = self._preferred(ahead, warm)
        for entry in ahead[:place]:
            self._line_of(entry)[entry] += 1
        self._pop(ahead[place], had_turn=True)
        return ahead[place]

    def order(self) -> list[T]:
        """Who goes when, if no model were warm: what `take(())` would give, one after the other."""
        return [*self._put_back, *self._rounds()]

    def _rounds(self) -> Iterator[T]:
        """Those that were not put back, lazily: each round takes one of every owner in the order of the ring."""
        return _interleaved(_interleaved(map(iter, sessions.values())) for sessions in self._owners.values())

    def _preferred(self, ahead: list[T], warm: Collection[str]) -> int:
        """The place, among those ahead, of the one that goes."""
        for place, entry in enumerate(ahead):
            if self._model_of(entry) in warm:
                return place
            if self._line_of(entry)[entry] >= self.warm_window:
                break
        return 0

    def _line_of(self, entry: T) -> Line[T]:
        return self._owners[self._owner_of(entry)][self._session_of(entry)]

    def _pop(self, entry: T, had_turn: bool = False) -> None:
        """Take an entry out of its line, and who has no more of them out of the rings."""
        owner, session = self._owner_of(entry), self._session_of(entry)
        sessions = self._owners[owner]
        del sessions[session][entry]
        if not sessions[session]:
            del sessions[session]
        elif had_turn:
            sessions.move_to_end(session)
        if not sessions:
            del self._owners[owner]
        elif had_turn:
            self._owners.move_to_end(owner)

    def _refuse_twice(self, entry: T) -> None:
        if entry in self:
            raise ValueError(f"{entry!r} waits already")


def _interleaved(lines: Iterable[Iterator[T]]) -> Iterator[T]:
    """One of each line, then the next of each, until all are empty.

    It asks for a line only when that comes to its first turn, so `take` looks at as few owners as it needs.
    """
    while lines:
        lasting: list[Iterator[T]] = []
        for line in lines:
            for entry in line:
                yield entry
                lasting.append(line)
                break
        lines = lasting
