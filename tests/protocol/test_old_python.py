"""The protocol package runs on every Python that a Krita brings along."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.pythons import VERSIONS, clean_environment, interpreter

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
sys.path[:0] = sys.argv[1:3]
from underpaint_protocol import client, geometry, locations
from underpaint_protocol.messages import vocabulary
for vector in json.load(open(sys.argv[3], encoding="utf-8"))["messages"]:
    data = bytes.fromhex(vector["hex"])
    assert vocabulary.encode(vocabulary.decode(data)) == data
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_vectors_hold_on_every_python(version: str) -> None:
    """Every golden vector survives decoding and encoding with the vendored msgpack on this Python."""
    python = interpreter(version)
    vendored = ROOT / "plugin_krita" / "underpaint_krita" / "_vendor"
    words = [str(ROOT / "protocol"), str(vendored), str(ROOT / "protocol/vectors/messages.json")]
    run = subprocess.run([python, "-c", PROGRAM, *words], env=clean_environment(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
