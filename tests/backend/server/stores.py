"""Stores of tiles with small slots, and what lies in their files."""

from __future__ import annotations

import struct
from pathlib import Path

from underpaint_backend.server.tiles import TileStore

SLOT = 100
RECORD = struct.Struct("<16sIIQ")


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
    """A store that was just opened."""
    store = TileStore(folder, max_bytes, SLOT)
    store.open()
    return store
