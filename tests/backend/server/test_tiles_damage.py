"""What the store of tiles does when the disk or a file fails it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from underpaint_backend.server.tiles import StoreFull, TileStore
from underpaint_protocol.tiles import name_of

from tests.backend.server.stores import RECORD, opened, overwrite


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


FULL_DISK = """
import resource, signal, sys
from hashlib import sha256
from pathlib import Path
from underpaint_backend.server.tiles import DiskFull, TileStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit fails with EFBIG
resource.setrlimit(resource.RLIMIT_FSIZE, (1050, 1050))
store = TileStore(Path(sys.argv[1]), 10_000, 100)
store.open()
contents = [bytes([index]) * 100 for index in range(12)]
names = [sha256(content).digest()[:16] for content in contents]
for name, content in zip(names[:11], contents):
    store.put(name, content)  # the last in the place of the first
assert store.missing(names) == [names[0], names[11]]
store.pin(names[1:11])
try:
    store.put(names[11], contents[11])
except DiskFull as full:
    print(full)
assert store.missing(names) == [names[0], names[11]]
assert store.bytes == 1000
assert [store.read(name) for name in names[1:11]] == contents[1:11]
"""


@pytest.mark.skipif(os.name != "posix", reason="the limit is one of POSIX")
def test_a_disk_that_takes_no_more_is_a_full_store(tmp_path: Path) -> None:
    """Tiles that nobody needs give way; without any, a write that fails half way takes no slot, and nothing is lost."""
    run = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "cannot be written" in run.stdout
