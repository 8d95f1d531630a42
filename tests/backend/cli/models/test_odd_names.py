"""Names of files that no terminal should see, and entries that nobody can read, stop no command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.backend.cli.models.typed import Say
from tests.backend.models.odd import PLANTED, own
from tests.backend.models.weight_files import checkpoint_of, write


def test_files_with_odd_names_are_listed_and_shown(say: Say, home: Path) -> None:
    """Neither bytes that are no Unicode nor what steers a terminal come out as they are."""
    folder = home / "mine"
    write(folder / "plain.safetensors", checkpoint_of("sd1"))
    os.rename(folder / "plain.safetensors", os.fsencode(folder) + b"/caf\xe9\x1b[2J.safetensors")
    write(folder / "nothing\x1b[2J.safetensors", {})
    code, out, _ = say("add-folder", str(folder))
    assert code == 0
    assert "nothing?[2J.safetensors cannot be used: it is a file without tensors" in out
    for words in ((), ("show", "file/caf-2j")):
        code, out, _ = say(*words)
        assert code == 0
        assert "caf??[2J" in out
        assert "\x1b" not in out


def test_an_odd_entry_is_named(say: Say, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The others are listed and shown; whoever would change the list hears first what is wrong with it."""
    (home / "home").mkdir()
    (home / "home" / "models.toml").write_text(own("mine"))
    PLANTED["infinite"](home / "home", home)
    code, out, _ = say()
    assert code == 0
    assert "\nmine " in out
    code, out, _ = say("show", "mine")
    assert code == 0
    assert out.startswith("mine\n")
    assert "models.toml: the model “odd”" in caplog.text
    code, _, err = say("remove", "mine")
    assert code == 2
    assert "models.toml: the model “odd”: its parameters must be numbers" in err
