"""What the end-to-end tests share: a display, a Krita with the plugin from its zip, and the daemon of all tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from underpaint_backend.launch import Launched

from .home import install, settled_home
from .launch import ROOT, Krita, Performance, display

PROGRAMS = ("krita", "Xvfb", "xdotool")
MISSING = "{} not found; the end-to-end tests need: apt install krita xvfb xdotool python3-pyqt5"
PHOTOGRAPHS = ROOT / "bench" / "photographs"
PICTURES = ROOT / "build" / "e2e"

Play = Callable[..., Performance]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def krita(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Krita]:
    """A Krita to start as often as needed. Without one the tests are skipped, except where CI promises it."""
    missing = [program for program in PROGRAMS if shutil.which(program, path="/usr/bin:/bin") is None]
    if missing:
        sentence = MISSING.format(", ".join(missing))
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    folder = tmp_path_factory.mktemp("krita")
    home = folder / "home"
    package = [sys.executable, str(ROOT / "plugin_krita" / "package.py"), str(folder)]
    built = subprocess.run(package, check=True, capture_output=True, text=True).stdout.strip()
    with display() as name:
        install(settled_home(name), Path(built), home)
        yield Krita(home, name)


@pytest.fixture(scope="session")
def play(krita: Krita, daemon: Launched, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Play a scenario against the daemon of all tests."""

    def perform(scenario: str, photograph: str = "coffee.jpg", **environment: str) -> Performance:
        use_server(daemon.home, daemon.url)
        inside = {
            "UNDERPAINT_HOME": str(daemon.home),
            "UNDERPAINT_PHOTOGRAPH": str(PHOTOGRAPHS / photograph),
            "UNDERPAINT_PICTURES": str(PICTURES),
            **environment,
        }
        return krita.play(scenario, tmp_path_factory.mktemp(scenario), inside)

    return perform


def use_server(home: Path, url: str, **tokens: str) -> None:
    """Write the plugin's settings into Underpaint's folder `home`."""
    (home / "krita.json").write_text(json.dumps({"server": url, "tokens": tokens}), encoding="utf-8")
