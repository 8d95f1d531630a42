"""The zip that artists import."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import install
import package
import pytest

IMPORTER = Path("/usr/share/krita/pykrita/plugin_importer")
IMPORT = """
import builtins, sys
builtins.i18n = str  # Krita provides it.
sys.path.insert(0, sys.argv[1])
from plugin_importer import PluginImporter
print([plugin["name"] for plugin in PluginImporter(sys.argv[2], sys.argv[3], lambda plugin: True).import_all()])
"""


def test_what_is_in_it(built_zip: Path) -> None:
    """The directory's own entry, which Krita's importer needs, the description, the modules, the vendored packages."""
    names = zipfile.ZipFile(built_zip).namelist()
    wanted = {
        "underpaint_krita/",
        "underpaint_krita.desktop",
        "underpaint_krita/__init__.py",
        "underpaint_krita/Manual.html",
        "underpaint_krita/LICENSE",
        "underpaint_krita/_vendor/websockets/sync/client.py",
        "underpaint_krita/_vendor/msgpack/fallback.py",
        "underpaint_krita/_vendor/underpaint_protocol/messages.py",
    }
    assert wanted <= set(names)
    assert not [name for name in names if name.endswith((".pyc", ".so"))]


def test_its_name_says_the_version(built_zip: Path) -> None:
    """Plugin and protocol are released together."""
    assert built_zip.name == f"underpaint_krita-{package.version()}.zip"


def test_same_sources_same_bytes(built_zip: Path, tmp_path: Path) -> None:
    """Two builds can be compared."""
    assert package.build(tmp_path).read_bytes() == built_zip.read_bytes()


@pytest.mark.skipif(not IMPORTER.exists(), reason="Krita is not installed: apt install krita")
def test_kritas_own_importer_takes_it(built_zip: Path, kritas_python: str, tmp_path: Path) -> None:
    """The code behind Tools > Scripts > Import Python Plugin unpacks it whole; also over an older one."""
    command = [kritas_python, "-B", "-c", IMPORT, str(IMPORTER), str(built_zip), str(tmp_path)]
    for _ in range(2):
        imported = subprocess.run(command, capture_output=True, text=True)
        assert imported.stdout.strip() == "['underpaint_krita']", imported.stderr
    found = {path.relative_to(tmp_path / "pykrita").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {name for name in zipfile.ZipFile(built_zip).namelist() if not name.endswith("/")}


def test_installing_puts_it_where_krita_looks(tmp_path: Path) -> None:
    """The plugin and its description are in the pykrita folder, and it is switched on; twice does no harm."""
    config = tmp_path / "config" / "kritarc"
    stale = tmp_path / "krita" / "pykrita" / "underpaint_krita" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    for _ in range(2):
        install.install(tmp_path / "krita", config)
        assert (tmp_path / "krita" / "pykrita" / "underpaint_krita.desktop").exists()
        assert (tmp_path / "krita" / "pykrita" / "underpaint_krita" / "__init__.py").exists()
        assert not stale.exists()
        assert config.read_text() == "[python]\nenable_underpaint_krita=true\n"


@pytest.mark.parametrize(
    ("platform", "environment", "folder", "config"),
    [
        ("linux", {}, "/h/.local/share/krita", "/h/.config/kritarc"),
        ("linux", {"XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "/c"}, "/d/krita", "/c/kritarc"),
        ("darwin", {}, "/h/Library/Application Support/krita", "/h/Library/Preferences/kritarc"),
        ("win32", {"APPDATA": "/r", "LOCALAPPDATA": "/l"}, "/r/krita", "/l/kritarc"),
    ],
)
def test_where_krita_keeps_things(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], folder: str, config: str
) -> None:
    """On each system, in the places that Krita documents."""
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/h", **environment}.items():
        monkeypatch.setenv(name, value)
    assert install.krita_places(platform) == (Path(folder), Path(config))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[python]\nenable_underpaint_krita=true\n"),
        ("a=1\n", "a=1\n\n[python]\nenable_underpaint_krita=true\n"),
        (
            "[x]\nb=2\n\n[python]\nenable_c=true\n",
            "[x]\nb=2\n\n[python]\nenable_underpaint_krita=true\nenable_c=true\n",
        ),
        ("[python]\nenable_underpaint_krita=false\n", "[python]\nenable_underpaint_krita=true\n"),
    ],
)
def test_other_settings_stay(before: str, after: str) -> None:
    """Only the plugin's own line in Krita's settings changes."""
    assert install.switched_on(before) == after
