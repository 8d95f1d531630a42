"""Makes the plugin importable outside Krita, with its vendored packages."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).resolve().parents[2] / "plugin_krita"
sys.path.insert(0, str(PLUGIN))

import vendor  # noqa: E402

if not vendor.TARGET.exists():
    vendor.vendor()

KRITAS_PYTHON = "/usr/bin/python3"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Underpaint's folder of a user who has nothing yet."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path))
    return tmp_path


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
