"""The store of tiles from several threads, on disks that are slow."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from underpaint_backend.server.slots import Slots
from underpaint_backend.server.tiles import TileStore
from underpaint_protocol.tiles import name_of

from tests.backend.server.stores import SLOT, on_disk, opened, overwrite


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
