"""The store of tiles beside a model of it that has no disk."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from underpaint_backend.server.tiles import BadTile, StoreFull
from underpaint_protocol.tiles import name_of

from tests.backend.server.stores import SLOT, on_disk, opened, overwrite

CONTENTS = [random.Random(index).randbytes(index * 37 % 300 + 1) for index in range(12)]
NAMES = [name_of(content) for content in CONTENTS]
CONTENT = dict(zip(NAMES, CONTENTS, strict=True))
SLOTS = {name: -(-len(content) // SLOT) for name, content in CONTENT.items()}
names = st.sampled_from(NAMES)
some_names = st.lists(names, max_size=6)


class Storing(RuleBasedStateMachine):
    """A store beside a model of it that has no disk: an ordered set of what may go, and a count of pins."""

    def __init__(self) -> None:
        super().__init__()
        self.home = TemporaryDirectory()
        self.folder = Path(self.home.name) / "tiles"
        self.loose: OrderedDict[bytes, None] = OrderedDict()
        self.pins: Counter[bytes] = Counter()
        self.here: set[bytes] = set()
        self.damaged: set[bytes] = set()

    @initialize(count=st.integers(1, 15))
    def start(self, count: int) -> None:
        self.count = count
        self.store = opened(self.folder, count * SLOT + SLOT // 2)

    def teardown(self) -> None:
        self.store.close()
        self.home.cleanup()

    def use(self, name: bytes) -> None:
        if name in self.loose:
            self.loose.move_to_end(name)

    @property
    def pinned(self) -> int:
        return sum(SLOTS[name] for name in self.here if name in self.pins)

    def held(self) -> int:
        return sum(SLOTS[name] for name in self.here)

    @rule(name=names)
    def put(self, name: bytes) -> None:
        if name not in self.here and self.pinned + SLOTS[name] > self.count:
            with pytest.raises(StoreFull):
                self.store.put(name, CONTENT[name])
            return
        self.store.put(name, CONTENT[name])
        self.use(name)
        while name not in self.here and self.held() + SLOTS[name] > self.count:
            self.here.discard(self.loose.popitem(last=False)[0])
        self.here.add(name)
        if name not in self.pins:
            self.loose[name] = None

    @rule(name=names, other=names)
    def put_something_else(self, name: bytes, other: bytes) -> None:
        if name != other and name not in self.here:
            with pytest.raises(BadTile):
                self.store.put(name, CONTENT[other])
        self.use(other)
        self.store.missing([other])

    @rule(name=names)
    def read(self, name: bytes) -> None:
        assert self.store.read(name) == (CONTENT[name] if name in self.here else None)
        self.use(name)

    @rule(asked=some_names)
    def missing(self, asked: list[bytes]) -> None:
        once = list(dict.fromkeys(asked))
        assert self.store.missing(iter(asked)) == [name for name in once if name not in self.here]
        for name in once:
            self.use(name)

    @rule(wanted=some_names)
    def pin(self, wanted: list[bytes]) -> None:
        if set(wanted) <= self.here:
            assert self.store.pin(iter(wanted)) == {name: SLOTS[name] for name in wanted}
            for name in set(wanted):
                self.pins[name] += 1
                self.loose.pop(name, None)
        else:
            with pytest.raises(KeyError):
                self.store.pin(wanted)

    @rule(wanted=some_names)
    def unpin(self, wanted: list[bytes]) -> None:
        if not set(wanted) <= set(self.pins):
            with pytest.raises(KeyError):
                self.store.unpin(wanted)
            return
        self.store.unpin(iter(wanted))
        for name in dict.fromkeys(wanted):
            self.pins[name] -= 1
            if not self.pins[name]:
                del self.pins[name]
                if name in self.here:
                    self.loose[name] = None

    @rule(asked=some_names)
    def shortage(self, asked: list[bytes]) -> None:
        more = {name for name in asked if not (name in self.here and name in self.pins)}
        short = self.pinned + sum(SLOTS[name] for name in more) + 1 - self.count
        assert self.store.shortage({name: self.store.slots_for(len(CONTENT[name])) for name in asked}, 1) == short
        pinned = {name: (self.pins[name], SLOTS[name]) for name in {*asked} & self.here & {*self.pins}}
        assert self.store.pinned(asked) == pinned

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """Something happens to the file, and the next read notices."""
        name = data.draw(st.sampled_from(sorted(self.here)))
        last = CONTENT[name][-1]
        overwrite(self.folder, name, bytes([last ^ 1]), (len(CONTENT[name]) - 1) % SLOT)
        assert self.store.read(name) is None
        self.here.discard(name)
        self.loose.pop(name, None)
        self.damaged.add(name)

    @rule()
    def reopen(self) -> None:
        """The daemon starts again: what was there is there, and nothing is pinned.

        What was evicted and not written over may be there again too; what was damaged is found out when it is read.
        """
        self.store.close()
        self.store = opened(self.folder, self.store.max_bytes)
        self.pins.clear()
        assert all(self.store.size_of(name) for name in self.here)
        again = [name for name in NAMES if self.store.size_of(name)]
        self.loose.clear()
        for name in again:  # from here on the model knows the order again
            content = self.store.read(name)
            assert content == CONTENT[name] or (content is None and name in self.damaged)
            if content is not None:
                self.here.add(name)
                self.loose[name] = None

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "store"):
            return
        assert {name for name in NAMES if self.store.size_of(name) == len(CONTENT[name])} == self.here
        assert self.store.bytes == self.held() * SLOT <= self.store.max_bytes == self.count * SLOT
        assert on_disk(self.folder) <= self.store.max_bytes
        assert self.store.pinned_bytes == self.pinned * SLOT


Storing.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestStoring = Storing.TestCase
