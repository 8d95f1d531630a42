"""The batch example, as someone runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from PIL import Image
from underpaint_backend.launch import Launched

from tests.examples.running import command, example


def test_a_list_of_prompts_becomes_a_folder_of_pictures(daemon: Launched, tmp_path: Path) -> None:
    """Each line is painted once; what is there already stays as it is."""
    prompts, folder = tmp_path / "prompts.txt", tmp_path / "pictures"
    prompts.write_text("a red heart\n\na blue star\n", encoding="utf-8")
    folder.mkdir()
    (folder / "003.png").write_bytes(b"kept")
    run = example("batch.py", str(prompts), str(folder), "--side", "64", daemon=daemon)
    assert run.returncode == 0, run.stderr
    assert {path.name for path in folder.iterdir()} == {"001.png", "003.png"}
    assert (folder / "003.png").read_bytes() == b"kept"
    with Image.open(folder / "001.png") as picture:
        assert (picture.mode, picture.size) == ("RGBA", (64, 64))


def test_a_daemon_that_refuses_is_quoted(daemon: Launched, tmp_path: Path) -> None:
    """What cannot be painted is said in the daemon's words."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red heart\n")
    run = example("batch.py", str(prompts), str(tmp_path / "out"), "--model", "nobodys", daemon=daemon)
    assert run.returncode == 1
    assert "There is no model called “nobodys” here." in run.stderr


def test_a_list_that_is_not_there_is_said(tmp_path: Path) -> None:
    """And so is a list that is no text, or a folder that cannot be made; nobody is asked to paint."""
    (tmp_path / "noise.txt").write_bytes(b"\xff\xfe\x80")
    (tmp_path / "list.txt").write_text("a cat\n")
    for prompts, folder, said in (
        ("missing.txt", "out", "No such file or directory"),
        ("noise.txt", "out", "codec can't decode"),
        ("list.txt", "noise.txt", "File exists"),
    ):
        words = command("batch.py", str(tmp_path / prompts), str(tmp_path / folder))
        run = subprocess.run(words, capture_output=True, text=True)
        assert run.returncode == 2
        assert said in run.stderr.splitlines()[-1]
        assert "Traceback" not in run.stderr
