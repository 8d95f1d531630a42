"""Headers of safetensors files: what is true is read, and what lies is refused in words."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from underpaint_backend.models import headers
from underpaint_backend.models.headers import BadFile, Header, Stored, parse_header, read_header


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    """A file with this header, be it true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    """A line of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_true_header_is_read(tmp_path: Path) -> None:
    """Names, types, shapes, bytes and notes are those of the file that the library wrote."""
    path = tmp_path / "model.safetensors"
    tensors = {"a.weight": torch.zeros(3, 5), "b.bias": torch.zeros(7, dtype=torch.float16), "c": torch.zeros(0, 2)}
    save_file(tensors, path, metadata={"format": "pt"})

    header = read_header(path)

    assert header == Header(
        {
            "a.weight": Stored("F32", (3, 5), 60),
            "b.bias": Stored("F16", (7,), 14),
            "c": Stored("F32", (0, 2), 0),
        },
        {"format": "pt"},
    )
    assert "a.weight" in header
    assert header.shape("a.weight") == (3, 5)
    assert header.shape("nothing") == ()
    assert sum(stored.size for stored in header.tensors.values()) == 74


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.int64, torch.bool])
def test_every_kind_of_number_is_known(tmp_path: Path, dtype: torch.dtype) -> None:
    """Files in 8 bits are as good as others."""
    save_file({"x": torch.zeros(6, dtype=torch.float32).to(dtype)}, tmp_path / "x.safetensors")

    assert read_header(tmp_path / "x.safetensors").tensors["x"].size == 6 * dtype.itemsize


LIES: dict[str, tuple[Any, bytes, str]] = {
    "too few bytes": ({"a": tensor(0, 8, [2])}, b"1234", "cut off: 4 of its 8"),
    "too many bytes": ({"a": tensor(0, 4, [1])}, b"123456", "2 bytes at its end"),
    "length and shape differ": ({"a": tensor(0, 4, [2])}, b"1234", "takes 8 bytes, and 4"),
    "backwards": ({"a": tensor(4, 0, [1])}, b"1234", "takes 4 bytes, and -4"),
    "overlap": ({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, b"0" * 12, "overlaps"),
    "the same place": ({"a": tensor(0, 4, [1]), "b": tensor(0, 4, [1])}, b"0" * 4, "overlaps"),
    "gap": ({"a": tensor(0, 4, [1]), "b": tensor(8, 12, [1])}, b"0" * 12, "gap"),
    "negative side": ({"a": tensor(0, 4, [-1])}, b"1234", "proper shape"),
    "true is no size": ({"a": {**tensor(0, 4, [1]), "shape": [True]}}, b"1234", "proper shape"),
    "fraction": ({"a": {**tensor(0, 4, [1]), "shape": [1.0]}}, b"1234", "proper shape"),
    "endless shape": ({"a": tensor(0, 4, [1] * 9)}, b"1234", "proper shape"),
    "huge side": ({"a": tensor(0, 4, [1 << 60])}, b"1234", "proper shape"),
    "three offsets": ({"a": {**tensor(0, 4, [1]), "data_offsets": [0, 4, 8]}}, b"1234", "proper shape"),
    "unknown type": ({"a": tensor(0, 4, [1], "F33")}, b"1234", "unknown type “F33”"),
    "type is a list": ({"a": {**tensor(0, 4, [1]), "dtype": []}}, b"1234", "unknown type"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, b"1234", "damaged at “a”"),
    "not an object": ({"a": 1}, b"", "damaged at “a”"),
    "metadata are numbers": ({"__metadata__": {"a": 1}}, b"", "metadata"),
    "metadata are a list": ({"__metadata__": []}, b"", "metadata"),
    "a name twice": (b'{"a":{},"a":{}}', b"", "valid JSON"),
    "cut JSON": (b'{"a":', b"", "valid JSON"),
    "not text": (b"{\xff\xfe}", b"", "valid JSON"),
    "NaN": (b'{"a":NaN}', b"", "valid JSON"),
    "nested without end": (b'{"a":' + b"[" * 200_000, b"", "valid JSON"),
    "a number of 10,000 digits": (b'{"a":' + b"9" * 10_000 + b"}", b"", "valid JSON"),
    "an array": (b"[]", b"", "brace"),
    "nothing": (b"", b"", "brace"),
}


@pytest.mark.parametrize(("header", "data", "words"), LIES.values(), ids=LIES.keys())
def test_a_header_that_lies_is_refused(tmp_path: Path, header: Any, data: bytes, words: str) -> None:
    """Each kind of lie has words of its own."""
    with pytest.raises(BadFile, match=words):
        read_header(write(tmp_path / "model.safetensors", header, data))


def zipped(path: Path) -> None:
    """A pickle as torch writes it today."""
    torch.save({"a": torch.zeros(3)}, path)
    assert zipfile.is_zipfile(path)


def pickled(path: Path) -> None:
    """A pickle as torch wrote it formerly."""
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)


def bare(path: Path) -> None:
    """A pickle without torch."""
    path.write_bytes(pickle.dumps({"a": list(range(1000))}))


@pytest.mark.parametrize("write_pickle", [zipped, pickled, bare])
def test_a_pickle_with_another_ending_is_refused(tmp_path: Path, write_pickle: Callable[[Path], None]) -> None:
    """It is told by its first bytes, and never opened."""
    path = tmp_path / "model.safetensors"
    write_pickle(path)

    with pytest.raises(BadFile, match="pickle: opening one can run any program, so Underpaint never opens one"):
        read_header(path)


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".BIN", ".pth", ".pkl"])
def test_a_pickle_is_refused_by_its_ending(tmp_path: Path, ending: str) -> None:
    """It need not even exist."""
    with pytest.raises(BadFile, match="pickle"):
        read_header(tmp_path / f"model{ending}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"1234", "cut off"),
        (struct.pack("<Q", 100) + b"{}", "cut off inside its header"),
        (struct.pack("<Q", 1 << 63) + b"{}" * 40, "would have 9223372036854775808 bytes"),
        (b"GGUF" + b"\x03" * 60, "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"<!DOCTYPE html><html><body>403</body></html>", "web page"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, words: str) -> None:
    """What lies where weights should be is named."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    with pytest.raises(BadFile, match=words):
        read_header(path)


def test_a_header_may_have_a_length_that_looks_like_a_pickle(tmp_path: Path) -> None:
    """640 bytes are written as 80 02, as a pickle begins."""
    header = json.dumps({"__metadata__": {"note": ""}}).encode()
    padded = json.dumps({"__metadata__": {"note": "x" * (640 - len(header))}}).encode()
    assert len(padded) == 640

    assert read_header(write(tmp_path / "model.safetensors", padded)).tensors == {}


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """Neither folders, nor pipes that would be waited for without end, nor nothing at all."""
    (tmp_path / "folder.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")

    for name in ("folder", "pipe"):
        with pytest.raises(BadFile, match="not a file"):
            read_header(tmp_path / f"{name}.safetensors")
    with pytest.raises(BadFile, match="No such file"):
        read_header(tmp_path / "none.safetensors")


def test_a_file_of_any_size_is_read_in_little_memory(tmp_path: Path) -> None:
    """A header that claims 100 GB, and one of more than the bound, cost nothing."""
    path = write(tmp_path / "model.safetensors", {"a": tensor(0, 100 << 30, [25 << 30])})
    os.truncate(path, path.stat().st_size + (100 << 30))
    claims = tmp_path / "claims.safetensors"
    claims.write_bytes(struct.pack("<Q", headers.MAX_HEADER + 1) + b"{")
    os.truncate(claims, 1 << 30)

    tracemalloc.start()
    try:
        assert read_header(path).tensors["a"].size == 100 << 30
        with pytest.raises(BadFile, match="would have"):
            read_header(claims)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_no_more_than_the_header_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the first 64 bytes, by which a file is told, what lies behind the header is not touched."""
    path = write(tmp_path / "model.safetensors", {"a": tensor(0, 1 << 20, [1 << 18])}, bytes(1 << 20))
    length = int.from_bytes(path.read_bytes()[:8], "little")
    asked: list[int] = []
    real = os.read

    def counted(descriptor: int, size: int) -> bytes:
        asked.append(size)
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", counted)
    read_header(path)

    assert asked == [length]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
LINES = st.dictionaries(
    st.sampled_from(["dtype", "shape", "data_offsets", "more"]),
    st.sampled_from(["F32", "F4", "I64"]) | st.lists(st.integers(-2, 9), max_size=3) | JSON,
)


@given(st.binary(max_size=300) | st.dictionaries(st.text(), LINES | JSON).map(lambda value: json.dumps(value).encode()))
def test_any_header_is_read_or_refused(text: bytes) -> None:
    """Nothing else is ever raised, and what is read fills the file."""
    for size in (0, 4, 100):
        with suppress(BadFile):
            header = parse_header(text, size)
            assert sum(stored.size for stored in header.tensors.values()) == size


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever the bytes are."""
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    with suppress(BadFile):
        assert isinstance(read_header(path), Header)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_byte_that_was_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    """Damage to a true file never gets past with sizes that do not fill it."""
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    save_file({"a": torch.zeros(10), "b.c": torch.zeros(2, 3, dtype=torch.float16)}, path)
    content = bytearray(path.read_bytes())
    content[place % len(content)] = value
    path.write_bytes(content)
    with suppress(BadFile):
        header = read_header(path)
        begin = 8 + int.from_bytes(content[:8], "little")
        assert sum(stored.size for stored in header.tensors.values()) == len(content) - begin
