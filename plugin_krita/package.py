"""Builds `dist/underpaint_krita-VERSION.zip`, for Krita's Tools > Scripts > Import Python Plugin.

The same sources give the same bytes. Standard library only; prints the path of the zip, which another FOLDER may take.

    python plugin_krita/package.py [FOLDER]
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path
from typing import Iterator, Tuple

import vendor

ROOT = vendor.ROOT
HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "underpaint_krita"
DATE = (1980, 1, 1, 0, 0, 0)
"""The date of everything in the zip: the earliest that the format knows."""


def version() -> str:
    """The version of plugin and protocol, which are released together."""
    source = (vendor.PROTOCOL / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', source, re.MULTILINE)
    if found is None:
        raise RuntimeError("the protocol package does not say its version")
    return found.group(1)


def contents() -> Iterator[Tuple[str, bytes]]:
    """Names and bytes of the zip's entries, in its order. A name that ends in a slash is a directory."""
    yield "underpaint_krita.desktop", (HERE / "underpaint_krita.desktop").read_bytes()
    # Krita's importer looks for an entry of the directory itself, and says "No plugins found" without one.
    yield "underpaint_krita/", b""
    yield "underpaint_krita/LICENSE", (ROOT / "LICENSE").read_bytes()
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(HERE).as_posix(), path.read_bytes()


def build(folder: Path) -> Path:
    """Make the zip in `folder` and return its path. The vendored packages are made anew first."""
    vendor.vendor()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"underpaint_krita-{version()}.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in contents():
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system = 3
            entry.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else 0o100644 << 16
            archive.writestr(entry, content, zipfile.ZIP_STORED if name.endswith("/") else zipfile.ZIP_DEFLATED)
    return target


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"))
