"""What is done when memory runs out, one thing after another, until it is enough.

The phase that ran out is done again, not the job: a step of the denoising loop too, for a prediction changes nothing
before the scheduler takes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from .device import bytes_wanted, is_out_of_memory, use_onednn, uses_onednn
from .exceptions import OutOfMemory
from .parts import Parts
from .precision import Storage
from .residency import Key

log = logging.getLogger(__name__)

T = TypeVar("T")

RECOVERY = 1.25
"""Times the room that was too little must be there before more is tried again."""
FIRST_TILE, LAST_TILE = 512, 128
"""Sides in px of the tiles in which pictures are encoded and decoded: each try halves them."""


class Rung(IntEnum):
    """What is done with less, the least harm first."""

    EVICT = 1
    TILE = 2
    SPLIT = 3
    ALONE = 4
    FP8 = 5
    FETCHED = 6


NOTICES = {
    Rung.TILE: "Memory was short, so pictures were encoded and decoded in tiles.",
    Rung.SPLIT: "Memory was short, so less was painted at once, which takes longer.",
    Rung.ALONE: "Memory was short, so parts of the model were loaded one after another, which takes longer.",
    Rung.FP8: "Memory was short, so the model's weights were kept in 8 bits, which changes pictures a little.",
    Rung.FETCHED: "Memory was short, so the model was fetched layer by layer at each step, which takes much longer.",
}
"""What an artist is told. That other models had to go is nobody's concern."""


@dataclass(frozen=True)
class Effort:
    """What a phase could do with less: `images` that it makes at once, guidance, tiles of a picture's longer `side`.

    `guided` says that guidance goes in one pass and could go in two. `side`, in px, is 0 where there is no picture to
    be tiled.
    """

    name: str
    images: int = 1
    guided: bool = False
    side: int = 0


class Ladder:
    """Where one model stands, from one job to the next.

    `at_once` bounds the images in one pass, `tile` the side in px of what the VAE sees at once; None is no bound.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.at_once: int | None = None
        self.splits_guidance = False
        self.tile: int | None = None
        self._alone = False
        self._onednn = True
        self._reached: set[Rung] = set()
        self._room = 0
        self._settle()

    @property
    def reached(self) -> frozenset[Rung]:
        """All that is in use."""
        return frozenset(self._reached)

    @property
    def notices(self) -> tuple[str, ...]:
        """What is done otherwise than it would be with more memory, in sentences for the artist."""
        return tuple(NOTICES[rung] for rung in sorted(self._reached) if rung in NOTICES)

    @property
    def alone(self) -> bool:
        """Whether the model's networks are loaded one after another."""
        return self._alone

    def begin(self) -> None:
        """Before each job: go back up if memory is there again."""
        if self._room and self.parts.residency.room() >= RECOVERY * self._room:
            log.info("there is memory again")
            self.at_once, self.splits_guidance, self.tile, self._alone, self._room = None, False, None, False, 0
            self._onednn = True
            self.parts.choose_storage()
            self._settle()
        self.parts.residency.alone = self._alone
        self.parts.device.keep_freed(self._reached <= {Rung.EVICT})
        use_onednn(self._onednn)

    def attempt(self, effort: Effort, work: Callable[[], T]) -> T:
        """What `work` returns, once it has memory enough. It is called again after each thing that may help.

        Raises `OutOfMemory` when nothing is left to be done.
        """
        wanted: int | None = None
        while True:
            with self.parts.residency.using() as used:
                try:
                    return work()
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    # oneDNN says no number; what was missing before is about what is missing now.
                    wanted, stuck = bytes_wanted(error) or wanted, "primitive" in str(error)
                    log.info("%s: %s", effort.name, str(error).splitlines()[0] if str(error) else "no memory")
            # Only now that the exception is gone are the tensors on its way gone, too.
            self.parts.device.keep_freed(False)
            self.parts.residency.give_back()
            if stuck and uses_onednn():
                self._onednn = False
                use_onednn(False)
            else:
                free = self.parts.device.memory()[0]
                if not self._climb(effort, used):
                    raise OutOfMemory(wanted, free)
            self._room = self.parts.residency.room()

    def _climb(self, effort: Effort, used: Iterable[Key]) -> bool:
        for rung, changes in self._rungs(effort, used):
            if changes():
                self._reached.add(rung)
                log.info("memory is short: %s, %s", rung.name.lower(), self.parts.words)
                return True
        return False

    def _rungs(self, effort: Effort, used: Iterable[Key]) -> Iterator[tuple[Rung, Callable[[], bool]]]:
        residency = self.parts.residency
        yield Rung.EVICT, lambda: residency.evict(keep=self.parts.identities())
        if effort.side:
            yield Rung.TILE, lambda: self._smaller_tile(effort.side)
        yield Rung.SPLIT, lambda: self._split(effort)
        yield Rung.ALONE, lambda: self._stay_alone(used)
        yield Rung.FP8, lambda: self._pack(Storage.FP8)
        yield Rung.FETCHED, lambda: self._pack(Storage.FETCHED)

    def _smaller_tile(self, side: int) -> bool:
        tile = FIRST_TILE if self.tile is None else self.tile // 2
        while tile >= side:
            tile //= 2
        if tile < LAST_TILE:
            return False
        self.tile = tile
        return True

    def _split(self, effort: Effort) -> bool:
        now = min(effort.images, self.at_once or effort.images)
        if now > 1:
            self.at_once = (now + 1) // 2
            return True
        if effort.guided and not self.splits_guidance:
            self.splits_guidance = True
            return True
        return False

    def _stay_alone(self, used: Iterable[Key]) -> bool:
        left = self.parts.residency.evict(keep=used)
        if left:
            self._alone = self.parts.residency.alone = True
        return left

    def _pack(self, storage: Storage) -> bool:
        if self.parts.storage >= storage or not self.parts.residency.memory.allows(storage):
            return False
        before = self.parts.identities()
        self.parts.storage = storage
        self.parts.residency.forget(set(before) - set(self.parts.identities()))
        return True

    def _settle(self) -> None:
        """Begin where the memory that is there had the weights put, before anything failed."""
        memory, storage = self.parts.residency.memory, self.parts.storage
        chosen = memory.precision != "auto" or memory.offload == "group"
        rung = Rung.FETCHED if storage == Storage.FETCHED else Rung.FP8
        self._reached = {rung} if storage != Storage.PLAIN and not chosen else set()
        self._room = self.parts.residency.room() if self._reached else 0
