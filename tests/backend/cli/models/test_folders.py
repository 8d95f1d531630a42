"""`underpaint models add-folder` and `remove-folder`: folders of other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from underpaint_backend.models.catalog import default_roots, find_models

from tests.backend.cli.models.typed import Say
from tests.backend.models.weight_files import checkpoint_of, write


def test_a_folder_of_another_program_is_added_and_forgotten(say: Say, home: Path) -> None:
    """Its checkpoints are models, what cannot be used is said with its reason, and its files stay."""
    checkpoint = write(home / "ComfyUI" / "checkpoints" / "Dreamer v8.safetensors", checkpoint_of("sd1"))
    (checkpoint.parent / "old.ckpt").write_bytes(b"pickle")
    (checkpoint.parent / "small.gguf").write_bytes(b"GGUF")
    code, out, _ = say("add-folder", str(home / "ComfyUI"))
    assert code == 0
    assert "file/dreamer-v8: Dreamer v8" in out
    assert "checkpoints/old.ckpt cannot be used: " in out
    assert "checkpoints/small.gguf cannot be used: it is cut off inside its header" in out
    assert "1 model and 0 LoRAs" in out
    entry = find_models(default_roots())["file/dreamer-v8"]
    assert (entry.model.state, entry.checkpoint) == ("ready", checkpoint)
    assert "Dreamer v8" in say("show", "file/dreamer-v8")[1]
    code, _, err = say("remove", "file/dreamer-v8", "--yes")
    assert (code, f"is the file {checkpoint}" in err) == (2, True)
    assert say("remove-folder", str(home / "ComfyUI"))[0] == 0
    assert "file/dreamer-v8" not in find_models(default_roots())
    assert checkpoint.exists()


def test_a_folder_that_is_not_there_is_said(say: Say, home: Path) -> None:
    """In words, with the exit code for bad input."""
    code, _, err = say("add-folder", str(home / "nowhere"))
    assert code == 2
    assert "there is no folder" in err.lower()
    assert say("remove-folder", str(home))[0] == 2


def test_an_empty_word_is_no_folder(say: Say, home: Path) -> None:
    """A variable without a value is not the folder where one happens to be."""
    for action in ("add-folder", "remove-folder"):
        with pytest.raises(SystemExit):
            say(action, "")
    assert not (home / "home" / "folders.json").exists()


def test_a_file_is_no_folder(say: Say, home: Path) -> None:
    """Whoever names one is told what to name instead."""
    checkpoint = write(home / "files" / "dreamer.safetensors", checkpoint_of("sd1"))
    code, _, err = say("add-folder", str(checkpoint))
    assert (code, err.count("\n")) == (2, 1)
    assert f"{checkpoint} is a file: name the folder that it lies in" in err
    assert "underpaint models add NAME" in err
    code, _, err = say("add", "x", str(checkpoint.parent))
    assert (code, f"underpaint models add-folder {checkpoint.parent}" in err) == (2, True)
