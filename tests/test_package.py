"""What `pip install` brings, built as a wheel: an editable install would hide what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in the wheel. It is built from a copy: where builds were, what they left would come along."""
    folder, sources = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in ("protocol", "backend"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(sources)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *words], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_module_is_in_the_wheel_and_no_other(contents: set[str]) -> None:
    """No folder of code was forgotten, and none comes along that is gone."""
    packages = (
        ROOT / "protocol" / "underpaint_protocol",
        ROOT / "backend" / "underpaint_backend",
        ROOT / "backend" / "underpaint",
    )
    modules = {str(path.relative_to(package.parent)) for package in packages for path in package.rglob("*.py")}
    assert {name for name in contents if name.endswith(".py")} == modules


def test_the_built_in_model_is_in_the_wheel(contents: set[str]) -> None:
    """A fresh install can paint."""
    folder = ROOT / "backend" / "underpaint_backend" / "models" / "primer_inpaint"
    files = {str(path.relative_to(folder.parents[1].parent)) for path in folder.rglob("*") if path.is_file()}
    assert any("unet/" in name and name.endswith(".safetensors") for name in files)
    assert files <= contents


def test_nothing_else_is_in_the_wheel(contents: set[str]) -> None:
    """Tests, training and measurements stay in the repository."""
    assert {name.split("/")[0].split("-")[0] for name in contents} == {
        "underpaint_protocol",
        "underpaint_backend",
        "underpaint",
    }
