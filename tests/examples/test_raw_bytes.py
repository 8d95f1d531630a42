"""The client that was written from SPEC.md alone."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from underpaint_backend.launch import Launched
from underpaint_protocol import tiles
from underpaint_protocol.messages import vocabulary

from tests.examples.running import EXAMPLES, command, environment
from tests.protocol.golden import VECTORS, from_json

PROGRAM = EXAMPLES / "raw_bytes.py"


def loaded() -> ModuleType:
    """The example as a module."""
    specification = importlib.util.spec_from_file_location("raw_bytes", PROGRAM)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


RAW = loaded()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage: raw_bytes.py FILE.png PROMPT [PORT]"),
        (["out.png", "a cat", "eight"], "usage: raw_bytes.py FILE.png PROMPT [PORT]"),
        (["out.png", "a cat"], "No such file or directory"),
    ],
)
def test_wrong_words_get_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    """How it is called, or what is not there: here the token of a daemon that never ran."""
    run = subprocess.run(
        command("raw_bytes.py", *words), env={"UNDERPAINT_HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


def test_it_paints_with_a_real_daemon(daemon: Launched, tmp_path: Path) -> None:
    """Its layer covers the mask and nothing else, and shows what was asked for."""
    path, port = tmp_path / "out.png", daemon.url.rpartition(":")[2]
    words = command("raw_bytes.py", str(path), "a red circle", port)
    run = subprocess.run(words, env=environment(daemon), capture_output=True, text=True, timeout=180)
    assert run.returncode == 0, run.stderr
    with Image.open(path) as layer:
        assert layer.size == (RAW.WIDTH, RAW.HEIGHT)
        assert layer.getchannel("A").getbbox() == (80, 60, 240, 220)
        assert layer.getchannel("A").getcolors() == [(320 * 280 - 160 * 160, 0), (160 * 160, 255)]
        red, green, blue, _ = layer.getpixel((160, 140))  # type: ignore[misc]
    assert red > green
    assert red > blue


def test_a_refusal_is_printed(daemon: Launched, tmp_path: Path) -> None:
    """Without its token the daemon lets nobody in, and says so."""
    (tmp_path / "token").write_text("0" * 64)
    words = command("raw_bytes.py", str(tmp_path / "out.png"), "x", daemon.url.rpartition(":")[2])
    home = {**environment(daemon), "UNDERPAINT_HOME": str(tmp_path)}
    run = subprocess.run(words, env=home, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "401" in run.stderr


def test_it_needs_nothing_but_python() -> None:
    """It imports neither Underpaint nor msgpack nor websockets."""
    tree = ast.parse(PROGRAM.read_text(encoding="utf-8"))
    imports = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imports += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in imports} <= sys.stdlib_module_names


@pytest.mark.parametrize("vector", VECTORS["messages"], ids=lambda vector: vector["message"]["type"])
def test_its_msgpack_understands_the_golden_vectors(vector: dict[str, Any]) -> None:
    """It reads each vector as what it means, and what it writes is understood."""
    data = bytes.fromhex(vector["hex"])
    assert RAW.unpack(data) == (from_json(vector["message"]), len(data))
    assert vocabulary.decode(RAW.pack(from_json(vector["message"]))) == vocabulary.decode(data)


@given(st.integers(0, 700), st.integers(0, 700), st.integers(1, 700), st.integers(1, 700))
def test_it_cuts_as_the_reference_does(x: int, y: int, width: int, height: int) -> None:
    """Its cells are those of the reference, wherever the picture lies."""
    assert list(RAW.cells(x, y, width, height)) == [tuple(cell) for cell in tiles.cells(x, y, width, height)]
