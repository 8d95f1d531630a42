"""How tiles are packed: what goes in comes out, and nothing else is let through."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from underpaint_protocol.encodings import ENCODINGS, XOR, decode, encode
from underpaint_protocol.exceptions import TileError

TILE = 512 << 10
encodings = st.sampled_from(ENCODINGS)
pixels = st.builds(lambda data, times: data * times, st.binary(max_size=300), st.integers(1, 50))


@given(encodings, pixels)
@example("zlib", b"")
@example("zlib", bytes(TILE))
def test_what_was_packed_comes_out_again(encoding: str, data: bytes) -> None:
    """Every encoding gives back what it got, and says so if another size was announced."""
    packed = encode(encoding, data)
    assert decode(encoding, packed, len(data)) == data
    for size in {0, 1, len(data) - 1, len(data) + 1, 2 * len(data), -1} - {len(data)}:
        with pytest.raises(TileError):
            decode(encoding, packed, size)


@given(pixels, st.data())
def test_a_changed_stream_is_refused_or_read_as_it_is(data: bytes, draw: st.DataObject) -> None:
    """Whatever happens to a stream on its way: nothing but `TileError`, or what zlib itself reads of that length."""
    packed = bytearray(encode("zlib", data))
    for _ in range(draw.draw(st.integers(1, 3))):
        place = draw.draw(st.integers(0, len(packed) - 1))
        packed[place : place + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
        packed = packed or bytearray(1)
    with contextlib.suppress(TileError):
        unpacked = decode("zlib", bytes(packed), len(data))
        assert unpacked == zlib.decompress(packed)
        assert len(unpacked) == len(data)


@given(pixels, st.data())
def test_a_stream_that_stops_early_is_refused(data: bytes, draw: st.DataObject) -> None:
    """Not even the last byte of the checksum may be missing."""
    packed = encode("zlib", data)
    kept = draw.draw(st.integers(0, len(packed) - 1) | st.integers(len(packed) - 6, len(packed) - 1))
    with pytest.raises(TileError, match="its end is missing"):
        decode("zlib", packed[:kept], len(data))


@given(pixels, st.binary(min_size=1, max_size=100))
def test_what_follows_the_end_is_refused(data: bytes, rest: bytes) -> None:
    """Nothing travels behind a stream, not even another stream."""
    for tail in (rest, zlib.compress(rest)):
        with pytest.raises(TileError, match="follows"):
            decode("zlib", encode("zlib", data) + tail, len(data))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_arbitrary_bytes_are_refused_or_a_stream(data: bytes, size: int) -> None:
    """Nothing but `TileError` is raised."""
    with contextlib.suppress(TileError):
        assert decode("zlib", data, size) == zlib.decompress(data)


def test_other_forms_of_deflate_are_refused() -> None:
    """A bare deflate stream, gzip and a stream with a dictionary are not zlib's streams."""
    for window, dictionary in ((-15, None), (31, None), (15, b"pixels")):
        options = (1, zlib.DEFLATED, window, 8, zlib.Z_DEFAULT_STRATEGY)
        packer = zlib.compressobj(*options) if dictionary is None else zlib.compressobj(*options, dictionary)
        packed = packer.compress(b"pixels") + packer.flush()
        with pytest.raises(TileError, match="no zlib stream"):
            decode("zlib", packed, 6)


def test_a_bomb_does_not_go_off() -> None:
    """A small stream of very many bytes costs little more than the tile that it was announced as."""
    bomb = encode("zlib", bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TileError, match="another size"):
            decode("zlib", bomb, TILE)
        assert tracemalloc.get_traced_memory()[1] < 3 * TILE + len(bomb)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, -1, -2])
def test_a_bomb_that_is_announced_as_nothing_does_not_go_off(size: int) -> None:
    """No size turns the limit off."""
    bomb = encode("zlib", bytes(16 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TileError):
            decode("zlib", bomb, size)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(bomb) + TILE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["", "png", "RAW", "zlib "])
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    """Both ways, whatever the bytes."""
    with pytest.raises(TileError, match="no encoding"):
        encode(encoding, b"")
    with pytest.raises(TileError, match="no encoding"):
        decode(encoding, b"", 0)


@given(st.binary(max_size=300), st.data())
def test_a_difference_and_its_base_give_the_tile(data: bytes, draw: st.DataObject) -> None:
    """What was packed against a base comes out with that base, and with no base it does not."""
    base = draw.draw(st.binary(min_size=len(data), max_size=len(data)))
    packed = encode(XOR, data, base)
    assert decode(XOR, packed, len(data), base) == data
    for wrong in (None, base + b"x"):
        with pytest.raises(TileError, match="base"):
            decode(XOR, packed, len(data), wrong)


def test_a_brush_stroke_is_small_as_a_difference() -> None:
    """Where little changed, little is left to pack, however busy the picture is."""
    base = random.Random(1).randbytes(1 << 16)
    changed = base[:1000] + bytes(500) + base[1500:]
    assert len(encode(XOR, changed, base)) < 1000 < len(encode("zlib", changed)) // 50
