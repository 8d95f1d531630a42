"""Folders that may not be read, and disks without room, as somebody meets them who sets up a box for painting."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend.models.things import any_index
from tests.backend.models.weight_files import kohya_lora, write

SETPRIV = shutil.which("setpriv")
ROOT = sys.platform != "win32" and os.getuid() == 0
LOWLY = (SETPRIV, "--inh-caps=-dac_override,-dac_read_search", "--bounding-set=-dac_override,-dac_read_search", "--")
"""Takes from root the right to read what it may not."""
FORBIDDEN = 0o000

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="rights are those of Unix"),
    pytest.mark.skipif(ROOT and SETPRIV is None, reason="root is refused nothing"),
]


def underpaint(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What somebody says to whom something can be forbidden."""
    return subprocess.run(
        [*(word for word in (LOWLY if ROOT else ()) if word), sys.executable, "-m", "underpaint_backend", *words],
        env={"UNDERPAINT_HOME": str(place / "home"), "HF_HOME": str(place / "hf"), "PATH": "", "HOME": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def forbidden(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "forbidden"
    folder.mkdir(mode=FORBIDDEN)
    yield folder
    folder.chmod(0o777)


def test_a_folder_that_may_not_be_read_is_not_added(tmp_path: Path, forbidden: Path) -> None:
    """It is said in one line, and nothing is noted that would be in the way of everything else."""
    for words in (["add-folder", str(forbidden)], ["add", "x", str(forbidden)], ["add", "x", str(forbidden / "in")]):
        run = underpaint(tmp_path, "models", *words)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
        assert str(forbidden) in run.stderr
        assert "Permission denied" in run.stderr
    assert not (tmp_path / "home" / "folders.json").exists()


def test_a_folder_that_may_not_be_read_any_more_is_left_out(tmp_path: Path) -> None:
    """With a line about it; other models stay, and so do other folders."""
    gone, stays = tmp_path / "gone", tmp_path / "stays"
    write(stays / "ink.safetensors", kohya_lora("sd1"))
    (gone / "models").mkdir(parents=True)
    for folder in (gone, stays):
        assert underpaint(tmp_path, "models", "add-folder", str(folder)).returncode == 0
    gone.chmod(FORBIDDEN)
    run = underpaint(tmp_path, "models")
    gone.chmod(0o777)
    assert run.returncode == 0, run.stderr
    assert "primer-inpaint" in run.stdout
    assert "\n  ink  Stable Diffusion 1.5" in run.stdout
    assert f"the folder {gone} cannot be read: Permission denied" in run.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk here that is always full")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """With the folder that is on it; what was written before stays, and nothing half is left."""
    home = tmp_path / "home"
    model = tmp_path / "model"
    write(model / "unet" / "model.safetensors", {"x": (1,)})
    (model / "unet" / "config.json").write_text("{}")
    (model / "model_index.json").write_bytes(any_index("unet"))
    assert underpaint(tmp_path, "models", "add", "one", str(model)).returncode == 0
    before = (home / "models.toml").read_text()
    (home / "models.new").symlink_to("/dev/full")
    run = underpaint(tmp_path, "models", "add", "two", str(model))
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert f"there is no room left on the disk of {home}. Nothing was changed" in run.stderr
    assert (home / "models.toml").read_text() == before
    assert not (home / "models.new").exists()
