"""Headers of GGUF files: what is true is read, and what lies is refused in words and without much memory."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from underpaint_backend.models.gguf import BLOCKS, PLAIN, QUANTISED, TYPES, header_of, read_gguf
from underpaint_backend.models.headers import BadFile, Stored
from underpaint_backend.models.recognise import UnknownFamily, recognise

from tests.backend.models import gguf_files as written
from tests.backend.models.gguf_files import U32, U64, Line, note, text


@pytest.mark.usefixtures("extras")
def test_a_true_header_is_read(tmp_path: Path) -> None:
    """Names, types, shapes, bytes, places and notes are those of the file that llama.cpp's own library wrote."""
    import gguf
    import numpy as np

    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(str(path), arch="flux")
    writer.add_array("numbers", [1, 2, 3])
    writer.add_array("texts", ["a", "bc"])
    writer.add_bool("yes", True)
    numbers = np.arange(3 * 64, dtype=np.float32).reshape(3, 64)
    packed = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("a.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("b.bias", np.arange(7, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    header = read_gguf(path)

    assert dict(header.tensors) == {"a.weight": Stored("Q8_0", (3, 64), 3 * 2 * 34), "b.bias": Stored("F16", (7,), 14)}
    assert header.metadata == {"general.architecture": "flux"}
    place = header.places["b.bias"]
    assert path.read_bytes()[place : place + 14] == np.arange(7, dtype=np.float16).tobytes()


@pytest.mark.usefixtures("extras")
def test_the_types_are_those_of_the_library_and_of_diffusers() -> None:
    """Their numbers, names, blocks and bytes; and what is read is what diffusers can make numbers of."""
    import gguf
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    known = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert dict(TYPES) == known
    assert {*QUANTISED, "BF16"} == {kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES}
    assert BLOCKS["Q4_K"] == 256


def test_the_tensors_of_a_bare_unet_have_the_names_of_a_checkpoint(tmp_path: Path) -> None:
    """ComfyUI's converter takes the prefix off, and notes the shapes of kernels that have no whole blocks."""
    lines = [
        Line("input_blocks.0.0.weight", (320, 4, 3, 3), "F16"),
        Line("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", (320, 768), "Q8_0"),
        Line("middle.weight", (90, 256), "Q4_K"),
    ]
    shape = note("comfy.gguf.orig_shape.middle.weight", 9, U32(5) + U64(4) + struct.pack("<4i", 80, 32, 3, 3))
    path = written.write(tmp_path / "sd.gguf", lines, [shape])

    header = header_of(path)

    assert header.shape("model.diffusion_model.middle.weight") == (80, 32, 3, 3)
    assert header.tensors["model.diffusion_model.middle.weight"].size == 90 * 144
    assert recognise(header).variant == "sd1"


def test_a_text_encoder_is_told_from_a_model(tmp_path: Path) -> None:
    """Those lie beside the models, in the same format."""
    path = written.write(tmp_path / "t5.gguf", [Line("enc.blk.0.attn_q.weight", (64, 64), "Q8_0")])

    with pytest.raises(UnknownFamily, match="text encoder"):
        recognise(header_of(path))


ONE = Line("a", (2, 32), "Q8_0")
LIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it is empty"),
    "a few bytes": (b"GG", "not in the GGUF format"),
    "the magic alone": (b"GGUF", "cut off inside its header"),
    "something else": (b"PK\x03\x04" + bytes(40), "not in the GGUF format"),
    "version 1": (written.made([ONE], version=1), "another version .*: 1"),
    "version 4": (written.made([ONE], version=4), "another version .*: 4"),
    "turned around": (b"GGUF" + struct.pack(">I", 3) + bytes(16), "from the other end"),
    "cut in the counts": (written.made([ONE])[:20], "cut off inside its header"),
    "cut in a tensor": (written.made([ONE])[:40], "cut off inside its header"),
    "endless tensors": (b"GGUF" + U32(3) + U64(1 << 60) + U64(0), "would have 1152921504606846976 tensors"),
    "endless notes": (b"GGUF" + U32(3) + U64(0) + U64(1 << 62), "notes"),
    "a huge name": (b"GGUF" + U32(3) + U64(1) + U64(0) + U64(1 << 40) + bytes(64), "a name in it would have"),
    "a huge text": (written.made([ONE], [text("k") + U32(8) + U64(1 << 50)]), "cut off"),
    "a huge list": (written.made([ONE], [text("k") + U32(9) + U32(4) + U64(1 << 50)]), "numbers in a list"),
    "a huge list of texts": (written.made([ONE], [text("k") + U32(9) + U32(8) + U64(1 << 50)]), "texts in a list"),
    "a vocabulary": (written.made([ONE], [text("k") + U32(9) + U32(8) + U64(1 << 17)]), "as language models"),
    "lists in a list": (written.made([ONE], [text("k") + U32(9) + U32(9) + U64(1)]), "unknown type 9"),
    "an unknown note": (written.made([ONE], [text("k") + U32(77)]), "unknown type 77"),
    "a name that is no text": (written.made([Line(b"\xff\xfe", (2, 32), "Q8_0")]), "no text"),
    "a note twice": (written.made([ONE], [note("k", 4, U32(1)), note("k", 4, U32(1))]), "noted twice"),
    "a tensor twice": (written.made([ONE, ONE]), "a name occurs twice"),
    "no sides": (written.made([Line("a", (), "F32")]), "has 0 sides"),
    "five sides": (written.made([Line("a", (1,) * 5, "F32")]), "has 5 sides"),
    "an empty side": (written.made([Line("a", (0, 32), "F32")]), "proper shape"),
    "a huge side": (written.made([Line("a", (1 << 60, 32), "F32")]), "proper shape"),
    "half a block": (written.made([Line("a", (2, 33), "Q8_0", size=64)]), "proper shape for Q8_0"),
    "an unknown type": (written.made([Line("a", (2, 32), 99, size=64)]), "unknown type 99"),
    "a type that is not read": (written.made([Line("a", (2, 256), "IQ2_XS")]), "IQ2_XS, which is not read"),
    "between two places": (written.made([Line("a", (2, 32), "Q8_0", offset=7)]), "between two places"),
    "overlap": (written.made([ONE, Line("b", (2, 32), "Q8_0", offset=32)]), "overlaps"),
    "far away": (written.made([Line("a", (2, 32), "Q8_0", offset=1 << 40)]), "cut off: 1099511623748 of its"),
    "too few bytes": (written.made([ONE])[:-1], "cut off: 1 of its"),
    "alignment 0": (written.made([ONE], [note("general.alignment", 4, U32(0))]), "power of two"),
    "alignment 3": (written.made([ONE], [note("general.alignment", 4, U32(3))]), "power of two"),
    "alignment is a text": (written.made([ONE], [note("general.alignment", 8, text("x"))]), "power of two"),
    "another shape is noted": (
        written.made([ONE], [note("comfy.gguf.orig_shape.a", 9, U32(5) + U64(1) + struct.pack("<i", 3))]),
        "another shape",
    ),
    "no shape is noted": (
        written.made([ONE], [note("comfy.gguf.orig_shape.a", 9, U32(5) + U64(2) + struct.pack("<2i", -8, -8))]),
        "is none",
    ),
}


@pytest.mark.parametrize(("content", "words"), LIES.values(), ids=LIES.keys())
def test_a_header_that_lies_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """Each kind of lie has words of its own."""
    path = tmp_path / "model.gguf"
    path.write_bytes(content)

    with pytest.raises(BadFile, match=words):
        read_gguf(path)


def test_no_more_than_the_bound_is_read(tmp_path: Path) -> None:
    """A file of 4 GB that claims a text of 2 GB, and one with such a text in a list, cost next to no memory."""
    claims = [
        text("k") + U32(8) + U64(2 << 30),
        text("k") + U32(9) + U32(8) + U64(1) + U64(20 << 20),
    ]
    for claim in claims:
        path = tmp_path / "large.gguf"
        path.write_bytes(b"GGUF" + U32(3) + U64(0) + U64(1) + claim)
        with path.open("r+b") as file:
            file.truncate(4 << 30)
        tracemalloc.start()
        with pytest.raises(BadFile, match="damaged"):
            read_gguf(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 20


@given(st.data())
def test_whatever_is_in_it_nothing_else_is_raised(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Of a true file, any bytes may be others, and any end may be missing."""
    true = bytearray(written.made([ONE, Line("b", (3, 4), "F16")], [note("k", 8, text("v")), note("n", 4, U32(1))]))
    for at in data.draw(st.lists(st.integers(0, len(true) - 1), max_size=6)):
        true[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    path.write_bytes(true[: data.draw(st.integers(0, len(true)))])

    with suppress(BadFile):
        header = read_gguf(path)
        for name, stored in header.tensors.items():
            assert header.places[name] + stored.size <= path.stat().st_size


def test_what_is_no_file_says_so(tmp_path: Path) -> None:
    """A folder, and nothing at all."""
    (tmp_path / "folder.gguf").mkdir()
    for name, words in {"folder.gguf": "not a file", "none.gguf": "cannot be read"}.items():
        with pytest.raises(BadFile, match=words):
            read_gguf(tmp_path / name)


def test_types_are_plain_or_quantised_or_neither() -> None:
    """What is neither is known by name, so that the refusal can say it."""
    names = {name for name, _, _ in TYPES.values()}
    assert {*PLAIN, *QUANTISED} < names
    assert not set(PLAIN) & set(QUANTISED)
