"""The home folder that Krita starts in: settled once per Krita version, because a first start takes 16 s or more."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from .launch import BUILD, HERE, run_krita

ENABLED = "[python]\nenable_underpaint_krita=true\nenable_underpaint_driver=true\n"


def krita_version() -> str:
    """What the package manager or Krita itself calls the installed version."""
    command = ["dpkg-query", "--show", "--showformat=${Version}", "krita"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.replace(":", "-") or "unknown"


def settled_home(display: str) -> Path:
    """A home in which Krita has made its resource database and shader cache; without any plugin of ours."""
    template = BUILD / f"krita-home-{krita_version()}"
    if not template.exists():
        BUILD.mkdir(exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix="krita-home-", dir=BUILD))
        _add_driver(home)
        facts = home / "facts.json"
        environment = {
            "UNDERPAINT_SCENARIO": str(HERE / "scenarios" / "settle.py"),
            "UNDERPAINT_FACTS": str(facts),
            "UNDERPAINT_PATIENCE": "290",
        }
        status, output = run_krita(home, display, environment, timeout=300)
        if status != 0 or not facts.exists():
            raise RuntimeError(f"Krita did not start for the first time (exit status {status}): {output[-2000:]}")
        facts.unlink()
        try:
            home.rename(template)
        except OSError:  # Another process of the tests was faster.
            if not template.exists():
                raise
            shutil.rmtree(home)
    return template


def install(template: Path, plugin_zip: Path, home: Path) -> None:
    """Make `home` a copy of `template` with the plugin from its zip and the driver."""
    shutil.copytree(template, home, symlinks=True)
    with zipfile.ZipFile(plugin_zip) as archive:
        archive.extractall(_plugins(home))
    _add_driver(home)


def _plugins(home: Path) -> Path:
    return home / ".local" / "share" / "krita" / "pykrita"


def _add_driver(home: Path) -> None:
    shutil.rmtree(_plugins(home) / "underpaint_driver", ignore_errors=True)
    shutil.copytree(HERE / "driver", _plugins(home), dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    settings = home / ".config" / "kritarc"
    settings.parent.mkdir(parents=True, exist_ok=True)
    text = settings.read_text(encoding="utf-8") if settings.exists() else ""
    if "enable_underpaint_driver" not in text:
        settings.write_text(text + ENABLED, encoding="utf-8")
