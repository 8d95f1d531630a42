"""The store of tiles: what it keeps, what it lets go, and what it does when the disk or a file fails it."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from underpaint_backend.server.slots import Slots
from underpaint_backend.server.tiles import BadTile, StoreFull, TileStore

SLOT = 100
RECORD = struct.Struct("<16sIIQ")


def name_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:16]


def slots(size: int) -> int:
    """How many slots so many bytes take."""
    return -(-size // SLOT)


def places(folder: Path, name: bytes) -> list[int]:
    """The slots in which a tile lies, by the index on the disk."""
    records = list(RECORD.iter_unpack((folder / "index").read_bytes()))[1:]
    found = {part: slot for slot, (owner, _, part, _) in enumerate(records) if owner == name}
    return [found[part] for part in sorted(found)]


def overwrite(folder: Path, name: bytes, data: bytes, at: int = 0) -> None:
    """Something writes into the last slot of a tile."""
    with (folder / "pixels").open("r+b") as file:
        file.seek(places(folder, name)[-1] * SLOT + at)
        file.write(data)


def on_disk(folder: Path) -> int:
    """Bytes of the pixels' file."""
    return (folder / "pixels").stat().st_size


def opened(folder: Path, max_bytes: int) -> TileStore:
    store = TileStore(folder, max_bytes, SLOT)
    store.open()
    return store


CONTENTS = [random.Random(index).randbytes(index * 37 % 300 + 1) for index in range(12)]
NAMES = [name_of(content) for content in CONTENTS]
CONTENT = dict(zip(NAMES, CONTENTS, strict=True))
SLOTS = {name: slots(len(content)) for name, content in CONTENT.items()}
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
            self.store.pin(iter(wanted))
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
    def has_room_for(self, asked: list[bytes]) -> None:
        fits = self.pinned + sum(SLOTS[name] for name in asked) <= self.count
        assert self.store.has_room_for(len(CONTENT[name]) for name in asked) == fits

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


def test_a_tile_lies_where_the_index_says(tmp_path: Path) -> None:
    """Raw pixels, in as many slots as they need, and only their owner can come to them."""
    store = opened(tmp_path / "tiles", 1000)
    content = random.Random(1).randbytes(250)
    store.put(name_of(b"pixels"), b"pixels")
    store.put(name_of(content), content)
    pixels = (tmp_path / "tiles" / "pixels").read_bytes()
    assert pixels[places(tmp_path / "tiles", name_of(b"pixels"))[0] * SLOT :].startswith(b"pixels")
    found = places(tmp_path / "tiles", name_of(content))
    assert b"".join(pixels[slot * SLOT : (slot + 1) * SLOT] for slot in found)[:250] == content
    assert sorted(path.name for path in (tmp_path / "tiles").iterdir()) == ["index", "pixels"]
    if os.name == "posix":
        paths = (tmp_path / "tiles", *(tmp_path / "tiles").iterdir())
        assert not any(path.stat().st_mode & 0o077 for path in paths)


def test_the_order_of_use_survives_a_restart(tmp_path: Path) -> None:
    """What was read last before the daemon stopped goes last after it started again."""
    store = opened(tmp_path, 300)
    contents = [bytes([index]) * 100 for index in range(4)]
    for content in contents[:3]:
        store.put(name_of(content), content)
    assert store.read(name_of(contents[0])) == contents[0]
    store = opened(tmp_path, 300)
    store.put(name_of(contents[3]), contents[3])
    assert store.missing(map(name_of, contents)) == [name_of(contents[1])]


def test_a_store_that_became_smaller_keeps_what_was_used_last(tmp_path: Path) -> None:
    """Opening with a lower bound gives the oldest tiles' part of the disk back, wherever the others lay."""
    store = opened(tmp_path, 1000)
    contents = [random.Random(index).randbytes(50 + 100 * (index % 2)) for index in range(6)]
    for content in contents:
        store.put(name_of(content), content)
    store.read(name_of(contents[1]))
    store.close()
    store = opened(tmp_path, 550)
    kept = [contents[index] for index in (1, 4, 5)]
    assert [store.read(name_of(content)) for content in kept] == kept
    assert store.missing(map(name_of, contents)) == [name_of(contents[index]) for index in (0, 2, 3)]
    assert (store.bytes, store.max_bytes) == (500, 500)
    assert on_disk(tmp_path) <= 500


@pytest.mark.parametrize("damage", ["pixels gone", "index gone", "index cut", "index of another size", "rubbish"])
def test_a_damaged_folder_costs_no_more_than_its_tiles(tmp_path: Path, damage: str) -> None:
    """What cannot be understood is missing, and can be sent again."""
    store = opened(tmp_path, 500)
    content = random.Random(1).randbytes(150)
    store.put(name_of(content), content)
    store.close()
    index = (tmp_path / "index").read_bytes()
    if damage == "pixels gone":
        (tmp_path / "pixels").unlink()
    elif damage == "index gone":
        (tmp_path / "index").unlink()
    elif damage == "index cut":
        (tmp_path / "index").write_bytes(index[: 2 * RECORD.size + 5])
    elif damage == "index of another size":
        TileStore(tmp_path, 500, 50).open()
    else:
        (tmp_path / "index").write_bytes(index[: RECORD.size] + random.Random(2).randbytes(1000))
    store = opened(tmp_path, 500)
    assert store.missing([name_of(content)]) == [name_of(content)]
    assert store.bytes == 0
    store.put(name_of(content), content)
    assert store.read(name_of(content)) == content


def test_a_tile_larger_than_the_store_evicts_nothing(tmp_path: Path) -> None:
    """What can never fit is refused before anything goes for it."""
    store = opened(tmp_path, 100)
    store.put(name_of(b"small"), b"small")
    with pytest.raises(StoreFull):
        store.put(name_of(bytes(101)), bytes(101))
    assert store.read(name_of(b"small")) == b"small"


def test_many_small_tiles_do_not_cost_more_memory_than_large_ones(tmp_path: Path) -> None:
    """A store is bounded in number too: each tile takes a slot."""
    store = opened(tmp_path, 500)
    for index in range(100):
        store.put(name_of(bytes([index])), bytes([index]))
    assert len(store.missing(name_of(bytes([index])) for index in range(100))) == 95


def test_a_damaged_tile_that_is_pinned_is_pinned_again_when_it_is_sent_again(tmp_path: Path) -> None:
    """A job keeps its claim on a tile although its pixels had to be fetched anew."""
    store = opened(tmp_path, 200)
    content = bytes(160)
    store.put(name_of(content), content)
    store.pin([name_of(content)])
    overwrite(tmp_path, name_of(content), b"rubbish")
    assert store.read(name_of(content)) is None
    assert store.pinned_bytes == store.bytes == 0
    store.put(name_of(content), content)
    assert store.pinned_bytes == 200
    with pytest.raises(StoreFull):
        store.put(name_of(bytes(1)), bytes(1))


def test_a_damaged_tile_can_be_unpinned(tmp_path: Path) -> None:
    """A job that ends lets go of its tiles, also of those that were lost; sent again, they may be evicted."""
    store = opened(tmp_path, 200)
    content = bytes(160)
    store.put(name_of(content), content)
    store.pin([name_of(content)])
    os.truncate(tmp_path / "pixels", 0)
    assert store.read(name_of(content)) is None
    store.unpin([name_of(content)])
    store.put(name_of(content), content)
    store.put(name_of(bytes(1)), bytes(1))
    assert store.missing([name_of(content)]) == [name_of(content)]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a file that is open cannot be deleted")
def test_a_folder_that_vanishes_takes_nothing_away(tmp_path: Path) -> None:
    """Someone clears the cache while the daemon runs: it goes on, and the next one begins anew."""
    store = opened(tmp_path / "tiles", 1000)
    store.put(name_of(b"a"), b"a")
    for path in (tmp_path / "tiles").iterdir():
        path.unlink()
    (tmp_path / "tiles").rmdir()
    store.put(name_of(b"b"), b"b")
    assert [store.read(name_of(content)) for content in (b"a", b"b")] == [b"a", b"b"]
    store.close()
    assert opened(tmp_path / "tiles", 1000).bytes == 0


def test_without_positions_in_system_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows: threads take turns to go to a place and read or write there."""
    monkeypatch.delattr(os, "pread")
    monkeypatch.delattr(os, "pwrite")
    store = opened(tmp_path, 10_000)
    contents = [random.Random(index).randbytes(90 + index) for index in range(40)]

    def send(content: bytes) -> bytes | None:
        store.put(name_of(content), content)
        return store.read(name_of(content))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(send, contents)) == contents


FULL_DISK = """
import resource, signal, sys
from hashlib import sha256
from pathlib import Path
from underpaint_backend.server.tiles import StoreFull, TileStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit fails with EFBIG
resource.setrlimit(resource.RLIMIT_FSIZE, (1050, 1050))
store = TileStore(Path(sys.argv[1]), 10_000, 100)
store.open()
contents = [bytes([index]) * 100 for index in range(11)]
names = [sha256(content).digest()[:16] for content in contents]
for name, content in zip(names, contents):
    try:
        store.put(name, content)
    except StoreFull as full:
        print(full)
assert store.missing(names) == names[10:]
assert store.bytes == 1000
assert [store.read(name) for name in names[:10]] == contents[:10]
"""


@pytest.mark.skipif(os.name != "posix", reason="the limit is one of POSIX")
def test_a_disk_that_takes_no_more_is_a_full_store(tmp_path: Path) -> None:
    """A write that fails half way raises `StoreFull`, takes no slot, and what was there is still served."""
    run = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "cannot be written" in run.stdout


class Gate:
    """Holds a thread up inside the disk."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.open.wait(timeout=20)


@contextmanager
def slow(monkeypatch: pytest.MonkeyPatch, what: str) -> Iterator[Gate]:
    """The first `what`, `read` or `write`, of the disk waits at a gate; it does its work after that."""
    gate, real, turns = Gate(), getattr(Slots, what), iter([True])

    def wait_first(disk: Slots, *arguments: object) -> object:
        if next(turns, False):
            gate.wait()
        return real(disk, *arguments)

    monkeypatch.setattr(Slots, what, wait_first)
    yield gate
    gate.open.set()


def test_nobody_waits_for_a_disk_that_reads_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a read hangs on the disk, the event loop gets its answers, and others write."""
    store = opened(tmp_path, 1000)
    name = name_of(b"slow")
    store.put(name, b"slow")
    with ThreadPoolExecutor(1) as thread, slow(monkeypatch, "read") as gate:
        reading = thread.submit(store.read, name)
        assert gate.reached.wait(10)
        answer_at_once(store, name)
        assert not reading.done()
        gate.open.set()
        assert reading.result(timeout=10) == b"slow"


def test_a_slow_read_does_not_take_a_successor_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tile was evicted and sent again while its old slot was read: only what was read is damaged."""
    store = opened(tmp_path, 100)
    name = name_of(bytes(60))
    store.put(name, bytes(60))
    with ThreadPoolExecutor(1) as thread, slow(monkeypatch, "read") as gate:
        reading = thread.submit(store.read, name)
        assert gate.reached.wait(10)
        store.put(name_of(bytes(80)), bytes(80))
        assert store.missing([name]) == [name]
        store.put(name, bytes(60))
        overwrite(tmp_path, name, b"x")
        gate.open.set()
        assert reading.result(timeout=10) is None
    assert store.size_of(name) == 60
    overwrite(tmp_path, name, bytes(1))
    assert store.read(name) == bytes(60)


def test_nobody_waits_for_a_disk_that_writes_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a write hangs on the disk its tile is missing; whoever writes the same waits, and nobody else does."""
    store = opened(tmp_path, 1000)
    name = name_of(b"slow")
    with ThreadPoolExecutor(2) as threads, slow(monkeypatch, "write") as gate:
        writing = [threads.submit(store.put, name, b"slow") for _ in range(2)]
        assert gate.reached.wait(10)
        assert store.missing([name]) == [name]
        answer_at_once(store, name_of(b"quick"))
        assert not any(write.done() for write in writing)
        gate.open.set()
        assert [write.result(timeout=10) for write in writing] == [None, None]
    assert store.size_of(name) == 4
    assert store.bytes == 200


def test_who_needs_the_room_of_a_write_under_way_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full store in which nothing is pinned is not full: what is being written may go once it is there."""
    store = opened(tmp_path, 100)
    first_name, second_name = name_of(b"s" * 60), name_of(b"n" * 60)
    with ThreadPoolExecutor(2) as threads, slow(monkeypatch, "write") as gate:
        first = threads.submit(store.put, first_name, b"s" * 60)
        assert gate.reached.wait(10)
        second = threads.submit(store.put, second_name, b"n" * 60)
        time.sleep(0.1)
        assert not second.done()
        gate.open.set()
        assert [write.result(timeout=10) for write in (first, second)] == [None, None]
    assert store.missing([first_name, second_name]) == [first_name]
    assert store.bytes == 100


def answer_at_once(store: TileStore, name: bytes) -> None:
    """Everything that the event loop asks for, and the writing of a tile called “quick”."""
    began = time.monotonic()
    store.put(name_of(b"quick"), b"quick")
    for _ in range(100):
        assert store.missing([name]) == []
        assert store.size_of(name)
        store.pin([name])
        store.unpin([name])
    assert time.monotonic() - began < 2


def test_what_many_threads_send_at_once_is_written_once(tmp_path: Path) -> None:
    """The same tile from eight threads: all are content, and it counts once."""
    store = opened(tmp_path, 12 * SLOT)
    for index in range(20):
        content = index.to_bytes(1, "little") * 4 * SLOT
        together = threading.Barrier(8)

        def send(content: bytes = content, together: threading.Barrier = together) -> bytes | None:
            together.wait()
            store.put(name_of(content), content)
            return store.read(name_of(content))

        with ThreadPoolExecutor(8) as threads:
            assert all(sent.result(timeout=10) == content for sent in [threads.submit(send) for _ in range(8)])
        assert store.bytes == on_disk(tmp_path) == min(index + 1, 3) * 4 * SLOT


def test_many_threads_stay_in_bounds(tmp_path: Path) -> None:
    """Threads write, read, pin and damage at random: the disk stays in bounds, reads are right, pins hold."""
    store = opened(tmp_path, 40_000)
    contents = [random.Random(index).randbytes(500 + index * 971 % 7500) for index in range(40)]
    vandals_favourite, *pinnable = contents
    stop = time.monotonic() + 2

    def send_and_read(choice: random.Random) -> None:
        content = choice.choice(contents)
        store.put(name_of(content), content)
        assert store.read(name_of(content)) in (content, None)

    def send_and_pin(choice: random.Random) -> None:
        content = choice.choice(pinnable)
        store.put(name_of(content), content)
        try:
            store.pin([name_of(content)])
        except KeyError:  # evicted in between
            return
        assert store.read(name_of(content)) == content
        assert not store.missing([name_of(content)])
        store.unpin([name_of(content)])

    def damage(choice: random.Random) -> None:
        name = name_of(vandals_favourite)
        store.put(name, vandals_favourite)
        try:
            store.pin([name])  # or it might lie elsewhere when the vandal comes
        except KeyError:
            return
        with (tmp_path / "pixels").open("r+b", buffering=0) as file:
            file.seek(store._pinned[name].slots[0] * SLOT)
            file.write(b"?" * 10)
        store.read(name)
        store.unpin([name])

    def measure(choice: random.Random) -> None:
        assert 0 <= store.pinned_bytes <= store.bytes <= store.max_bytes
        assert on_disk(tmp_path) <= store.max_bytes

    def repeat(act: Callable[[random.Random], None], seed: int) -> int:
        choice, times = random.Random(seed), 0
        while time.monotonic() < stop:
            act(choice)
            times += 1
        return times

    acts = [send_and_read] * 5 + [send_and_pin] * 2 + [damage, measure]
    with ThreadPoolExecutor(len(acts)) as threads:
        running = [threads.submit(repeat, act, seed) for seed, act in enumerate(acts)]
        assert all(run.result(timeout=20) > 3 for run in running)
    assert store.pinned_bytes == 0
