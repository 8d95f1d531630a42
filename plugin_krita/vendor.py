"""Makes `underpaint_krita/_vendor/`: what the plugin needs, as subpackages of its own with relative imports.

Krita shares one Python between all plugins, so nothing of ours may appear at the top of `sys.modules`. The files are
pure Python and run on every Python from 3.8 on. Standard library only; wheels are kept in `build/vendor`.

    python plugin_krita/vendor.py
"""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, Tuple

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "vendor"
PROTOCOL = ROOT / "protocol" / "underpaint_protocol"
TARGET = Path(__file__).resolve().parent / "underpaint_krita" / "_vendor"


@dataclass(frozen=True)
class Wheel:
    """A release on the package index, and which of its files the plugin needs."""

    name: str
    version: str
    file: str
    sha256: str
    platform: str
    files: Tuple[str, ...]
    licence: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


WHEELS = (
    # The last release for Python 3.8. Only what `websockets.sync.client` imports.
    Wheel(
        name="websockets",
        version="13.1",
        file="websockets-13.1-py3-none-any.whl",
        sha256="a9a396a6ad26130cdae92ae10c36af09d9bfe6cafe69670fd3b6da9b07b4044f",
        platform="any",
        files=(
            "__init__.py",
            "client.py",
            "datastructures.py",
            "exceptions.py",
            "extensions/__init__.py",
            "extensions/base.py",
            "extensions/permessage_deflate.py",
            "frames.py",
            "headers.py",
            "http11.py",
            "imports.py",
            "protocol.py",
            "py.typed",
            "streams.py",
            "sync/__init__.py",
            "sync/client.py",
            "sync/connection.py",
            "sync/messages.py",
            "sync/utils.py",
            "typing.py",
            "uri.py",
            "utils.py",
            "version.py",
        ),
        licence="websockets-13.1.dist-info/LICENSE",
    ),
    # The last release for Python 3.8. There is no pure wheel: this one also has a library for Linux, which stays out.
    Wheel(
        name="msgpack",
        version="1.1.1",
        file="msgpack-1.1.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        sha256="8a8b10fdb84a43e50d38057b06901ec9da52baac6983d3f709d8507f3889d43f",
        platform="manylinux2014_x86_64",
        files=("__init__.py", "exceptions.py", "ext.py", "fallback.py"),
        licence="msgpack-1.1.1.dist-info/licenses/COPYING",
    ),
)
NAMES = (*(wheel.name for wheel in WHEELS), PROTOCOL.name)


def vendor(target: Path = TARGET) -> None:
    """Make `target` hold exactly what the plugin needs. Files that are right already are left alone.

    Raises `subprocess.CalledProcessError` if a wheel cannot be downloaded, and `RuntimeError` if it is not the one
    that was pinned here.
    """
    files = {"__init__.py": b'"""Packages of others, and the protocol package. Made by vendor.py; do not edit."""\n'}
    for wheel in WHEELS:
        files.update(_wheel_files(wheel))
    files.update(_protocol_files())
    for name, content in sorted(files.items()):
        _write(target / name, _with_relative_imports(name, content) if name.endswith(".py") else content)
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target).as_posix() not in files:
            path.unlink()


def _write(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _wheel_files(wheel: Wheel) -> Iterator[Tuple[str, bytes]]:
    with zipfile.ZipFile(_download(wheel)) as archive:
        for file in wheel.files:
            name = f"{wheel.name}/{file}"
            yield name, archive.read(name)
        yield f"{wheel.name}/LICENSE", archive.read(wheel.licence)


def _protocol_files() -> Iterator[Tuple[str, bytes]]:
    for path in sorted(PROTOCOL.glob("*.py")):
        yield f"{PROTOCOL.name}/{path.name}", path.read_bytes()
    yield f"{PROTOCOL.name}/LICENSE", (ROOT / "LICENSE").read_bytes()


def _download(wheel: Wheel) -> Path:
    path = CACHE / wheel.file
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        choice = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", f"--platform={wheel.platform}"]
        subprocess.run([*pip, *choice, f"--dest={CACHE}", wheel.requirement], check=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wheel.sha256:
        path.unlink()
        raise RuntimeError(f"{wheel.file} has the digest {found}, not the pinned one; it was deleted")
    return path


def _with_relative_imports(name: str, source: bytes) -> bytes:
    """The module `name` with every absolute import of a vendored package made relative."""
    lines = source.decode("utf-8").splitlines(keepends=True)
    up = "." * (name.count("/") + 1)
    for number, (before, after) in _imports(source, up).items():
        lines[number - 1] = lines[number - 1].replace(before, after, 1)
    # `websockets.client` repeats the names of the old client, which would bring half of the package along.
    return "".join(line for line in lines if not re.search(r"^from \.legacy|legacy__all__", line)).encode("utf-8")


def _imports(source: bytes, up: str) -> Dict[int, Tuple[str, str]]:
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _is_vendored(node.module or ""):
            found[node.lineno] = (f"from {node.module}", f"from {up}{node.module}")
        elif isinstance(node, ast.Import) and any(_is_vendored(alias.name) for alias in node.names):
            (alias,) = node.names
            if "." in alias.name:
                raise RuntimeError(f"“import {alias.name}” has no relative form; write “from ... import” in its source")
            found[node.lineno] = (f"import {alias.name}", f"from {up} import {alias.name}")
    return found


def _is_vendored(module: str) -> bool:
    return module.split(".")[0] in NAMES


if __name__ == "__main__":
    vendor()
