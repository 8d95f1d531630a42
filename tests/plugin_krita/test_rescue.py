"""Pictures whose document is gone, in the Qt that Krita has, without Krita."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from .conftest import PLUGIN

SCRIPT = """
import json, sys
from underpaint_krita.qt import QtCore
from underpaint_krita.rescue import rescue

def kept(job, prompt):
    pixels = QtCore.QByteArray(bytes([30, 20, 10, 128] * 6))
    return rescue(job, pixels, 3, 2, {"prompt": prompt, "seed": 7})

found = [kept("0123456789abcdef", "Ein „Fuchs“ / im Schnee: " + "x" * 300), kept("fedcba98", ""), kept("fedcba98", "")]
print(json.dumps([getattr(one, "path", None) or one.problem for one in found]))
"""


def run(kritas_python: str, home: Path) -> list[str]:
    """The paths of what was rescued, or the problem."""
    if subprocess.run([kritas_python, "-c", "import PyQt5.QtGui"], capture_output=True).returncode:
        pytest.skip("PyQt5 is not installed: apt install python3-pyqt5")
    command = [kritas_python, "-B", "-c", SCRIPT]
    environment = {**os.environ, "UNDERPAINT_HOME": str(home)}
    done = subprocess.run(command, cwd=PLUGIN, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    paths: list[str] = json.loads(done.stdout)
    return paths


def test_a_rescued_picture_is_whole(kritas_python: str, tmp_path: Path) -> None:
    """Its pixels with their alpha, the recipe in its text, the prompt in its name."""
    first, second, third = run(kritas_python, tmp_path)
    assert Path(first).name == "ein-fuchs-im-schnee-xxxxxxxxxxxxxxxxxxxx-01234567.png"
    with Image.open(first) as picture:
        assert picture.mode == "RGBA"
        assert picture.size == (3, 2)
        assert picture.getcolors() == [(6, (10, 20, 30, 128))]
        recipe = json.loads(picture.info["underpaint"])
    assert recipe["prompt"].startswith("Ein „Fuchs“")
    assert recipe["seed"] == 7
    assert (Path(second).name, second) == ("picture-fedcba98.png", third)
    assert len(list((tmp_path / "recovered").iterdir())) == 2


def test_a_disk_that_refuses_is_a_sentence(kritas_python: str, tmp_path: Path) -> None:
    """And not a picture that is thought to be safe."""
    (tmp_path / "recovered").touch()
    assert "recovered" in run(kritas_python, tmp_path)[0]
