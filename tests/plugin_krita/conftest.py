"""Makes the plugin importable outside Krita, with its vendored packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).resolve().parents[2] / "plugin_krita"
sys.path.insert(0, str(PLUGIN))

import vendor  # noqa: E402 - it is found only by the line above

if not vendor.TARGET.exists():
    vendor.vendor()

KRITAS_PYTHON = "/usr/bin/python3"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Underpaint's folder of a user who has nothing yet."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def client() -> Iterator[Any]:
    """The network thread with a mailbox: a `Client` of `wire.py`."""
    from tests.plugin_krita.wire import PATIENCE, Client

    client = Client()
    yield client
    client.network.close(PATIENCE)


@pytest.fixture(scope="session")
def built_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin as it is given away."""
    import package

    return package.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def kritas_python() -> str:
    """The Python that Krita runs here, with PyQt5."""
    if shutil.which(KRITAS_PYTHON) is None:
        pytest.skip("the system has no Python with PyQt5; it comes with: apt install python3-pyqt5")
    return KRITAS_PYTHON


Facts = dict[str, Any]
Told = Callable[[str], Facts]


@pytest.fixture(scope="session")
def told_by(kritas_python: str) -> Told:
    """What a script prints as JSON that shows widgets of the plugin in the Qt that Krita has, on no screen."""
    if subprocess.run([kritas_python, "-c", "import PyQt5.QtWidgets"], capture_output=True).returncode:
        pytest.skip("PyQt5 is not installed: apt install python3-pyqt5")
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}

    def told(script: str) -> Facts:
        command = [kritas_python, "-B", "-c", script]
        run = subprocess.run(command, cwd=PLUGIN, capture_output=True, text=True, env=environment, timeout=60)
        assert run.returncode == 0, run.stderr
        facts: Facts = json.loads(run.stdout)
        return facts

    return told
