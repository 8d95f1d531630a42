"""Puts the plugin where a Krita finds it, and switches it on. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Tuple

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


def main() -> None:
    """Install the plugin for this user."""
    resources, config = krita_places()
    install(resources, config)
    print(f"The plugin is in {resources / 'pykrita' / NAME}, and switched on.")


def krita_places(platform: str = sys.platform) -> Tuple[Path, Path]:
    """Where this user's Krita keeps its resources, and its settings file."""
    home = Path.home()
    if platform == "win32":
        return Path(os.environ["APPDATA"]) / "krita", Path(os.environ["LOCALAPPDATA"]) / "kritarc"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "krita", home / "Library" / "Preferences" / "kritarc"
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return data / "krita", Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kritarc"


if __name__ == "__main__":
    main()
