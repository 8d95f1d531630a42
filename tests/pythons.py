"""Other Pythons on this machine, for what has to run on them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


def interpreter(version: str) -> str:
    """A Python of this version, by its name or from pyenv; the test is skipped if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    python = str(found[-1]) if found else shutil.which(f"python{version}")
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    return python


def clean_environment() -> dict[str, str]:
    """This process's environment without what would make another Python find this one's packages."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
