"""Someone who types `underpaint models`, with a stand-in for the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from underpaint_backend.cli import main

from tests.backend.cli.models.typed import Say
from tests.backend.models.hub import StandIn


@pytest.fixture
def home(hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folders, of whom nobody knows anything yet."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def say(home: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Type `underpaint models ...`; the exit code, and what was printed."""

    def typed(*words: str) -> tuple[int, str, str]:
        code = main(["models", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return typed
