"""Puts the plugin where a Krita finds it, and switches it on. Standard library only."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import package

NAME = package.PACKAGE.name
SWITCH = f"enable_{NAME}=true"


def install(resource_folder: Path, config: Path) -> None:
    """Install the plugin into Krita's `resource_folder` and switch it on in its settings file `config` (kritarc).

    An older copy is replaced. Krita must not be running, as it writes its settings when it ends.
    Raises `OSError` if a file cannot be written.
    """
    plugins = resource_folder / "pykrita"
    plugins.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.rmtree(plugins / NAME, ignore_errors=True)
        shutil.unpack_archive(package.build(Path(folder)), plugins)
    config.parent.mkdir(parents=True, exist_ok=True)
    before = config.read_text(encoding="utf-8") if config.exists() else ""
    config.write_text(switched_on(before), encoding="utf-8")


def switched_on(settings: str) -> str:
    """The text of a kritarc in which the plugin is switched on; every other line stays as it is."""
    without = re.sub(rf"^enable_{NAME}=.*\n?", "", settings, flags=re.MULTILINE)
    if re.search(r"^\[python\]$", without, re.MULTILINE):
        return re.sub(r"^\[python\]$", f"[python]\n{SWITCH}", without, count=1, flags=re.MULTILINE)
    return without.rstrip("\n") + "\n" * bool(without.strip()) * 2 + f"[python]\n{SWITCH}\n"
