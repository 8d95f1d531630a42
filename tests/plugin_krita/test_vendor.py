"""The packages that the plugin brings along."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import vendor

from tests.pythons import VERSIONS, interpreter

from .conftest import PLUGIN

PROBE = """
import sys
from underpaint_krita import daemon, mailbox, network, pixels, settings
from underpaint_krita._vendor.underpaint_protocol.messages import Cancel, vocabulary
assert vocabulary.decode(vocabulary.encode(Cancel("a"))) == Cancel("a")
print(sorted({name.split(".")[0] for name in sys.modules} & {"websockets", "msgpack", "underpaint_protocol"}))
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_plugin_brings_everything_and_shows_nothing(version: str) -> None:
    """On every Python that a Krita has, its modules import without any package, and none is at the top."""
    command = [interpreter(version), "-S", "-B", "-c", PROBE]
    probe = subprocess.run(command, cwd=PLUGIN, capture_output=True, text=True, env={"PYTHONPATH": str(PLUGIN)})
    assert (probe.stdout.strip(), probe.stderr) == ("[]", "")


def test_vendored_protocol_is_ours() -> None:
    """The copy differs from the protocol package in imports alone."""
    for path in vendor.PROTOCOL.glob("*.py"):
        ours = path.read_text().splitlines()
        copy = (vendor.TARGET / "underpaint_protocol" / path.name).read_text().splitlines()
        changed = [line for line, other in zip(ours, copy, strict=True) if line != other]
        assert all("import msgpack" in line for line in changed), path.name


def test_what_is_right_is_left_alone(tmp_path: Path) -> None:
    """A second run writes nothing, removes what does not belong, and repairs what was changed."""
    vendor.vendor(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.py")}
    changed = tmp_path / "msgpack" / "ext.py"
    changed.write_text("")
    (tmp_path / "msgpack" / "stale.py").touch()
    vendor.vendor(tmp_path)
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.py")}
    assert {path for path in again if again[path] != written.get(path)} == {changed}
    assert changed.read_text()


def test_licences_travel_along() -> None:
    """Whoever gets the copy gets its licence."""
    for name in vendor.NAMES:
        assert (vendor.TARGET / name / "LICENSE").read_text().strip()


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was exchanged is deleted, and nothing of it is used."""
    monkeypatch.setattr(vendor, "CACHE", tmp_path)
    exchanged = tmp_path / vendor.WHEELS[0].file
    exchanged.write_bytes(b"something else")
    with pytest.raises(RuntimeError, match="not the pinned one"):
        vendor.vendor(tmp_path / "target")
    assert not exchanged.exists()
