"""The store of tiles: what it keeps, what it lets go, and what it does when the disk or a file fails it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from underpaint_backend.server.tiles import BadTile, StoreFull, TileStore

TILE = 512 << 10


def name_of(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def file_of(folder: Path, name: bytes) -> Path:
    return folder / name.hex()[:2] / name.hex()


def on_disk(folder: Path) -> int:
    """Bytes of all files of a store at rest, half written ones included."""
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def opened(folder: Path, max_bytes: int) -> TileStore:
    store = TileStore(folder, max_bytes)
    store.open()
    return store


CONTENTS = [random.Random(index).randbytes(index * 37 % 300 + 1) for index in range(12)]
NAMES = [name_of(content) for content in CONTENTS]
CONTENT = dict(zip(NAMES, CONTENTS, strict=True))
names = st.sampled_from(NAMES)
some_names = st.lists(names, max_size=6)


class Storing(RuleBasedStateMachine):
    """A store beside a model of it that has no disk: an ordered dict of what may go, and a count of pins."""

    def __init__(self) -> None:
        super().__init__()
        self.home = TemporaryDirectory()
        self.folder = Path(self.home.name) / "tiles"
        self.loose: OrderedDict[bytes, int] = OrderedDict()
        self.pins: Counter[bytes] = Counter()
        self.here: set[bytes] = set()

    @initialize(max_bytes=st.integers(100, 1500))
    def start(self, max_bytes: int) -> None:
        self.store = opened(self.folder, max_bytes)

    def teardown(self) -> None:
        self.home.cleanup()

    def use(self, name: bytes) -> None:
        if name in self.loose:
            self.loose.move_to_end(name)

    @property
    def pinned(self) -> int:
        return sum(len(CONTENT[name]) for name in self.here if name in self.pins)

    def held(self) -> int:
        return sum(len(CONTENT[name]) for name in self.here)

    @rule(name=names)
    def put(self, name: bytes) -> None:
        size = len(CONTENT[name])
        if name not in self.here and self.pinned + size > self.store.max_bytes:
            with pytest.raises(StoreFull):
                self.store.put(name, CONTENT[name])
            return
        self.store.put(name, CONTENT[name])
        self.use(name)
        while name not in self.here and self.held() + size > self.store.max_bytes:
            self.here.discard(self.loose.popitem(last=False)[0])
        self.here.add(name)
        if name not in self.pins:
            self.loose[name] = size

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
                    self.loose[name] = len(CONTENT[name])

    @precondition(lambda self: self.here)
    @rule(data=st.data(), how=st.sampled_from(["delete", "flip", "cut", "lengthen"]))
    def damage(self, data: st.DataObject, how: str) -> None:
        """Something happens to a file, and the next read notices."""
        name = data.draw(st.sampled_from(sorted(self.here)))
        path = file_of(self.folder, name)
        if how == "delete":
            path.unlink()
        else:
            content = CONTENT[name]
            changed = {"flip": bytes([content[0] ^ 1]) + content[1:], "cut": content[:-1], "lengthen": content * 1000}
            path.write_bytes(changed[how])
        assert self.store.read(name) is None
        assert not path.exists()
        self.here.discard(name)
        self.loose.pop(name, None)

    @rule()
    def reopen(self) -> None:
        """The daemon starts again: what was there is there, and nothing is pinned."""
        stray = file_of(self.folder, NAMES[0]).with_name(NAMES[0].hex() + ".part")
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"half")
        self.store = opened(self.folder, self.store.max_bytes)
        assert not stray.exists()
        self.pins.clear()
        self.loose = OrderedDict((name, len(CONTENT[name])) for name in sorted(self.here))
        assert self.store.missing(sorted(self.here)) == []  # from here on the model knows the order again

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "store"):
            return
        assert {name for name in NAMES if self.store.size_of(name) == len(CONTENT[name])} == self.here
        assert {name for name in NAMES if file_of(self.folder, name).exists()} == self.here
        assert self.store.bytes == self.held() == on_disk(self.folder) <= self.store.max_bytes
        assert self.store.pinned_bytes == self.pinned


Storing.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestStoring = Storing.TestCase


def test_a_tile_lies_where_its_name_says(tmp_path: Path) -> None:
    """The file is `folder/ab/abcdef…`, holds the raw pixels, and only its owner can come to it."""
    store = opened(tmp_path / "tiles", 1000)
    name = name_of(b"pixels")
    store.put(name, b"pixels")
    path = file_of(tmp_path / "tiles", name)
    assert path.read_bytes() == b"pixels"
    assert [stray.name for stray in path.parent.iterdir()] == [name.hex()]
    if os.name == "posix":
        assert (tmp_path / "tiles").stat().st_mode & 0o077 == 0


def test_the_order_of_use_survives_a_restart(tmp_path: Path) -> None:
    """What was read last before the daemon stopped goes last after it started again."""
    store = opened(tmp_path, 300)
    contents = [bytes([index]) * 100 for index in range(4)]
    for index, content in enumerate(contents[:3]):
        store.put(name_of(content), content)
        os.utime(file_of(tmp_path, name_of(content)), (index, index))
    assert store.read(name_of(contents[0])) == contents[0]
    store = opened(tmp_path, 300)
    store.put(name_of(contents[3]), contents[3])
    assert store.missing(map(name_of, contents)) == [name_of(contents[1])]


def test_a_store_that_became_smaller_keeps_what_was_used_last(tmp_path: Path) -> None:
    """Opening with a lower bound deletes the oldest tiles from the disk."""
    store = opened(tmp_path, 1000)
    for index in range(10):
        store.put(name_of(bytes([index]) * 100), bytes([index]) * 100)
        os.utime(file_of(tmp_path, name_of(bytes([index]) * 100)), (index, index))
    store = opened(tmp_path, 250)
    assert store.missing(name_of(bytes([index]) * 100) for index in (8, 9)) == []
    assert store.bytes == on_disk(tmp_path) == 200


def test_what_no_store_wrote_is_left_alone(tmp_path: Path) -> None:
    """Other files in the folder, also such that look alike, are neither served nor deleted."""
    name = name_of(b"x").hex()
    others = [tmp_path / path for path in ("README", "ab/notes.part", f"zz/{name}", "00/" + "ff" * 16)]
    for other in others:
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(b"x")
    (tmp_path / "ab" / ("ab" * 16)).mkdir()
    store = opened(tmp_path, 1000)
    assert store.bytes == 0
    assert all(other.exists() for other in others)


def test_a_tile_larger_than_the_store_evicts_nothing(tmp_path: Path) -> None:
    """What can never fit is refused before anything goes for it."""
    store = opened(tmp_path, 100)
    store.put(name_of(b"small"), b"small")
    with pytest.raises(StoreFull):
        store.put(name_of(bytes(101)), bytes(101))
    assert store.read(name_of(b"small")) == b"small"


def test_a_damaged_tile_that_is_pinned_is_pinned_again_when_it_is_sent_again(tmp_path: Path) -> None:
    """A job keeps its claim on a tile although the file had to be fetched anew."""
    store = opened(tmp_path, 100)
    content = bytes(60)
    store.put(name_of(content), content)
    store.pin([name_of(content)])
    file_of(tmp_path, name_of(content)).write_bytes(b"rubbish")
    assert store.read(name_of(content)) is None
    assert store.pinned_bytes == store.bytes == 0
    store.put(name_of(content), content)
    assert store.pinned_bytes == 60
    with pytest.raises(StoreFull):
        store.put(name_of(bytes(61)), bytes(61))


def test_a_damaged_tile_can_be_unpinned(tmp_path: Path) -> None:
    """A job that ends lets go of its tiles, also of those that were lost; sent again, they may be evicted."""
    store = opened(tmp_path, 100)
    content = bytes(60)
    store.put(name_of(content), content)
    store.pin([name_of(content)])
    file_of(tmp_path, name_of(content)).unlink()
    assert store.read(name_of(content)) is None
    store.unpin([name_of(content)])
    store.put(name_of(content), content)
    store.put(name_of(bytes(61)), bytes(61))
    assert store.missing([name_of(content)]) == [name_of(content)]


def test_a_folder_that_vanishes_is_made_again(tmp_path: Path) -> None:
    """Someone clears the cache while the daemon runs: tiles are missing, and can be sent again."""
    store = opened(tmp_path / "tiles", 1000)
    store.put(name_of(b"a"), b"a")
    file_of(tmp_path / "tiles", name_of(b"a")).unlink()
    file_of(tmp_path / "tiles", name_of(b"a")).parent.rmdir()
    (tmp_path / "tiles").rmdir()
    assert store.read(name_of(b"a")) is None
    store.put(name_of(b"a"), b"a")
    assert store.read(name_of(b"a")) == b"a"


def test_a_tile_that_cannot_be_deleted_stays_and_the_store_is_full(tmp_path: Path) -> None:
    """When eviction fails on the disk, that is said, and the tile is still served where it can be."""
    store = opened(tmp_path, 100)
    store.put(name_of(b"a"), b"a")
    path = file_of(tmp_path, name_of(b"a"))
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreFull):
        store.put(name_of(bytes(100)), bytes(100))
    assert store.missing([name_of(b"a")]) == []
    path.rmdir()
    store.put(name_of(bytes(100)), bytes(100))
    assert store.missing([name_of(b"a")]) == [name_of(b"a")]


FULL_DISK = """
import resource, signal, sys
from hashlib import blake2b
from pathlib import Path
from underpaint_backend.server.tiles import StoreFull, TileStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit fails with EFBIG
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
store = TileStore(folder, 10_000)
store.open()
names = {size: blake2b(bytes(size), digest_size=16).digest() for size in (1000, 1001)}
store.put(names[1000], bytes(1000))
try:
    store.put(names[1001], bytes(1001))
except StoreFull as full:
    print(full)
assert [path.name for path in folder.glob("*/*")] == [names[1000].hex()]
assert store.missing(names.values()) == [names[1001]]
assert store.bytes == 1000
assert store.read(names[1000]) == bytes(1000)
"""


@pytest.mark.skipif(os.name != "posix", reason="the limit is one of POSIX")
def test_a_disk_that_takes_no_more_is_a_full_store(tmp_path: Path) -> None:
    """A write that fails half way raises `StoreFull`, leaves nothing behind, and what was there is still served."""
    run = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "cannot be written" in run.stdout


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a file that blocks is one of POSIX")
def test_the_index_does_not_wait_for_a_disk_that_reads_slowly(tmp_path: Path) -> None:
    """While a read hangs on the disk, the event loop gets its answers, and others write."""
    store = opened(tmp_path, 1000)
    name = name_of(b"slow")
    store.put(name, b"slow")
    file_of(tmp_path, name).unlink()
    os.mkfifo(file_of(tmp_path, name))
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(store.read, name)
        answer_at_once(store, name)
        assert not reading.done()
        file_of(tmp_path, name).write_bytes(b"slow")
        assert reading.result(timeout=10) == b"slow"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a file that blocks is one of POSIX")
def test_a_slow_read_of_a_damaged_file_does_not_take_its_successor_away(tmp_path: Path) -> None:
    """The tile was evicted and sent again while its old file was read: only the old one is damaged."""
    store = opened(tmp_path / "tiles", 100)
    name = name_of(bytes(60))
    store.put(name, bytes(60))
    file_of(tmp_path / "tiles", name).unlink()
    os.mkfifo(tmp_path / "old")
    os.link(tmp_path / "old", file_of(tmp_path / "tiles", name))
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(store.read, name)
        with (tmp_path / "old").open("wb") as old:  # waits until it is being read
            store.put(name_of(bytes(80)), bytes(80))
            assert store.missing([name]) == [name]
            store.put(name, bytes(60))
            old.write(b"rubbish")
        assert reading.result(timeout=10) is None
    assert store.read(name) == bytes(60)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a file that blocks is one of POSIX")
def test_the_index_does_not_wait_for_a_disk_that_writes_slowly(tmp_path: Path) -> None:
    """While a write hangs on the disk its tile is missing; whoever writes the same waits, and nobody else does."""
    store = opened(tmp_path, 1000)
    name = name_of(b"slow")
    part = file_of(tmp_path, name).with_name(name.hex() + ".part")
    part.parent.mkdir()
    os.mkfifo(part)
    with ThreadPoolExecutor(2) as threads:
        writing = [threads.submit(store.put, name, b"slow") for _ in range(2)]
        assert store.missing([name]) == [name]
        answer_at_once(store, name_of(b"quick"))
        assert not any(write.done() for write in writing)
        assert part.read_bytes() == b"slow"
        assert [write.result(timeout=10) for write in writing] == [None, None]
    assert store.size_of(name) == 4
    assert store.bytes == 9


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a file that blocks is one of POSIX")
def test_who_needs_the_room_of_a_write_under_way_waits_for_it(tmp_path: Path) -> None:
    """A full store in which nothing is pinned is not full: what is being written may go once it is there."""
    store = opened(tmp_path, 100)
    slow, next_one = name_of(b"s" * 60), name_of(b"n" * 60)
    part = file_of(tmp_path, slow).with_name(slow.hex() + ".part")
    part.parent.mkdir()
    os.mkfifo(part)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(store.put, slow, b"s" * 60)
        while store.bytes < 60:
            time.sleep(0.001)
        second = threads.submit(store.put, next_one, b"n" * 60)
        time.sleep(0.1)
        assert not second.done()
        assert part.read_bytes() == b"s" * 60
        assert [write.result(timeout=10) for write in (first, second)] == [None, None]
    assert store.missing([slow, next_one]) == [slow]
    assert store.bytes == on_disk(tmp_path) == 60


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
    store = opened(tmp_path, 3 * TILE)
    for index in range(20):
        content = index.to_bytes(1, "little") * TILE
        together = threading.Barrier(8)

        def send(content: bytes = content, together: threading.Barrier = together) -> bytes | None:
            together.wait()
            store.put(name_of(content), content)
            return store.read(name_of(content))

        with ThreadPoolExecutor(8) as threads:
            assert all(sent.result(timeout=10) == content for sent in [threads.submit(send) for _ in range(8)])
        assert store.bytes == on_disk(tmp_path) == min(index + 1, 3) * TILE


def test_many_threads_stay_in_bounds(tmp_path: Path) -> None:
    """Threads write, read, pin and delete at random: the disk stays in bounds, reads are right, pins hold."""
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

    def delete(choice: random.Random) -> None:
        file_of(tmp_path, name_of(vandals_favourite)).unlink(missing_ok=True)
        store.read(name_of(vandals_favourite))

    def measure(choice: random.Random) -> None:
        assert 0 <= store.pinned_bytes <= store.bytes <= store.max_bytes
        assert certainly_on_disk(tmp_path) <= store.max_bytes

    def repeat(act: Callable[[random.Random], None], seed: int) -> int:
        choice, times = random.Random(seed), 0
        while time.monotonic() < stop:
            act(choice)
            times += 1
        return times

    acts = [send_and_read] * 5 + [send_and_pin] * 2 + [delete, measure]
    with ThreadPoolExecutor(len(acts)) as threads:
        running = [threads.submit(repeat, act, seed) for seed, act in enumerate(acts)]
        assert all(run.result(timeout=20) > 3 for run in running)
    for content in contents:  # so that the last deletion is noticed
        store.read(name_of(content))
    assert store.bytes == on_disk(tmp_path)
    assert store.pinned_bytes == 0


def certainly_on_disk(folder: Path) -> int:
    """Bytes of the files that were there before and after a moment, thus at that moment."""
    before, after = files(folder), files(folder)
    return sum(size for inode, size in before.items() if after.get(inode) == size)


def files(folder: Path) -> dict[tuple[str, int, int], int]:
    """Size of each file, by what tells it from a later one at its place."""
    found = {}
    for path in folder.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
            status = path.stat()
            found[str(path), status.st_ino, status.st_mtime_ns] = status.st_size
    return found
