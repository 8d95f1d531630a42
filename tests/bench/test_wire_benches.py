"""Small runs of the benches of the wire, so that they cannot rot. What they say of speed means nothing here."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from random import Random

import msgpack
import pytest
from underpaint_backend.launch import Launched, launched
from underpaint_protocol.encodings import ENCODINGS
from underpaint_protocol.exceptions import ProtocolError
from underpaint_protocol.messages import Tile, vocabulary
from underpaint_protocol.tiles import name_of


def test_fuzz(daemon: Launched) -> None:
    """A thousand wrong frames crash nothing and hang nothing, and every phase has rows."""
    from fuzz import measure

    figure = measure(daemon, 1000, seed=3)
    assert figure.value == 0, figure.rows
    assert {"1", "2", "3", "4"} <= {str(row["phase"])[:1] for row in figure.rows}


@pytest.mark.parametrize("make", ["structure", "bytewise", "nesting", "wide", "noise", "turned_round", "tile"])
def test_mutations_are_the_same_for_the_same_seed(make: str) -> None:
    """What a visit sends depends on its name alone, and decoding it raises nothing but the protocol's own errors."""
    from fuzzing import mutations

    mutate = getattr(mutations, make)
    once, again = ([mutate(random) for _ in range(20)] for random in (Random("a"), Random("a")))
    assert once == again
    for data in once:
        with contextlib.suppress(ProtocolError):
            vocabulary.decode(data)


def test_frames_of_tiles_are_what_the_protocol_makes_of_them() -> None:
    """The frames that are put together from pieces hold tiles of their name, and no two are alike."""
    from websockets.utils import apply_mask
    from wire.frames import MASK
    from wire.uploaders import SIZE, TileFrames

    names = set()
    for number in range(3):
        name, pieces = TileFrames("seed").tile(number)
        data = b"".join(pieces)
        tile = vocabulary.decode(apply_mask(data[14:], MASK))
        assert isinstance(tile, Tile)
        assert (tile.name, tile.size) == (name, SIZE)
        assert name_of(tile.data) == name
        names.add(name)
    assert len(names) == 3
    assert msgpack.unpackb(apply_mask(data[14:], MASK))["type"] == "tile"


def test_stall(tmp_path: Path) -> None:
    """B's latencies are measured alone and beside A, A is cut off in time, and gets what it missed."""
    from stall import measure

    with launched(tmp_path / "home", "--threads", "1", "--stall-seconds", "1") as daemon:
        figure = asyncio.run(measure(daemon, 1, 0.3, 1))
    rows = {str(row["what"]).split(",")[0]: row["beside A"] for row in figure.rows}
    assert 0.9 < float(str(rows["A is cut off after s (--stall-seconds 1)"])) < 3
    assert int(str(rows["events that A missed"])) > 3
    assert rows["and the picture"] == "yes"
    assert figure.value > 0


def test_upload() -> None:
    """After a stroke less travels than at first, with every encoding, and after nothing almost nothing."""
    from upload import measure

    figure = measure(512, 2, seed=1)
    shares = {str(row["what"]).strip(): row["% of the first"] for row in figure.rows}
    assert {f"{encoding}: first job" for encoding in ENCODINGS} <= shares.keys()
    assert float(str(shares["nothing changed"])) < 1
    assert 0 < figure.value < 100


def test_throughput(tmp_path: Path) -> None:
    """Both sides take the same pixels, and the daemon has them all in the end."""
    from throughput import measure

    figure = measure(1, 3, 4, tmp_path)
    assert figure.value > 0
    assert [row["round"] for row in figure.rows] == ["first", "1", "median"]
