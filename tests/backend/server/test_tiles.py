"""The store of tiles: what it keeps, and what it lets go."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from underpaint_backend.server.tiles import StoreFull
from underpaint_protocol.tiles import name_of

from tests.backend.server.stores import SLOT, on_disk, opened, places


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
