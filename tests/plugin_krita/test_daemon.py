"""Starting the daemon from Krita."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from underpaint_krita import daemon


def test_the_daemon_says_how_it_is_started(home: Path) -> None:
    """The words that it wrote down are used as they are."""
    (home / "launch.json").write_text(json.dumps(["python", "-m", "underpaint_backend", "serve"]))
    assert daemon.launch_command() == ["python", "-m", "underpaint_backend", "serve"]


@pytest.mark.parametrize("damage", ["", "{}", "[]", "[1]", '"serve"'])
def test_without_its_word_the_command_is_looked_for(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """A damaged file counts for nothing; `underpaint` on the PATH is taken."""
    (home / "launch.json").write_text(damage)
    program = tmp_path / "bin" / "underpaint"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert daemon.launch_command() == [str(program), "serve"]


def test_no_daemon_is_no_command(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is installed, nothing is tried."""
    monkeypatch.setenv("PATH", str(home))
    assert daemon.launch_command() is None


def test_kritas_own_variables_stay_behind() -> None:
    """Krita's Python path would lead the daemon's Python astray; everything else is passed on."""
    before = {"PYTHONPATH": "x", "PYTHONHOME": "x", "LD_LIBRARY_PATH": "x", "HOME": "/home/a", "UNDERPAINT_HOME": "/u"}
    assert daemon.clean_environment(before) == {"HOME": "/home/a", "UNDERPAINT_HOME": "/u"}


def test_what_it_says_goes_to_the_log(home: Path) -> None:
    """Its output is kept for whoever looks for a reason."""
    starting = daemon.start([sys.executable, "-c", "print('I could not listen')"])
    assert starting.process.wait(30) == 0
    assert "I could not listen" in (home / "daemon.log").read_text()


def test_patience_with_a_daemon_that_starts_has_an_end(home: Path) -> None:
    """While it runs it is waited for, but not for ever; once it has ended, not at all."""
    starting = daemon.start([sys.executable, "-c", "input()"])
    starting.process.wait(30)
    assert "ended with 1" in str(starting.problem)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert daemon.Starting(process, time.monotonic() + 60).problem is None
        assert "does not answer" in str(daemon.Starting(process, time.monotonic() - 1).problem)
        process.kill()


def test_a_daemon_that_ends_at_once_is_quoted(home: Path) -> None:
    """What it complained of is the sentence; what an earlier one said in the same log is not."""
    (home / "daemon.log").write_text("underpaint: an old story\n")
    words = "import sys; sys.exit('a line\\nunderpaint: there is no device “cuda” here. There is: cpu.')"
    starting = daemon.start([sys.executable, "-c", words])
    starting.process.wait(30)
    assert starting.problem is not None
    assert starting.problem.message == "The daemon did not start: there is no device “cuda” here. There is: cpu."
    starting = daemon.start([sys.executable, "-c", "raise SystemExit(3)"])
    starting.process.wait(30)
    assert starting.problem is not None
    assert starting.problem.message == "The daemon did not start: it ended with 3."


@pytest.mark.parametrize(
    ("server", "more"),
    [("ws://127.0.0.1:9000", ["--port", "9000"]), ("ws://localhost", []), ("ws://[::1]:8738/", ["--port", "8738"])],
)
def test_the_daemon_is_started_where_the_plugin_looks_for_it(server: str, more: list[str]) -> None:
    """The port in the address is the one at which the daemon is told to listen."""
    assert daemon.at_port_of(server, ["underpaint", "serve"]) == ["underpaint", "serve", *more]


@pytest.mark.parametrize(
    ("server", "own"),
    [
        ("ws://127.0.0.1:8738", True),
        ("ws://localhost:8738", True),
        ("ws://[::1]:8738/", True),
        ("ws://127.0.0.1:8739", False),
        ("ws://localhost", False),
        ("wss://localhost:8738", False),
        ("wss://localhost:8748", False),
        ("ws://box.example:8738", False),
        ("ws://127.0.0.1.example:8738", False),
        ("ws://127.0.0.1:99999", False),
        ("ws://[abc", False),
        ("", False),
    ],
)
def test_a_daemon_is_started_at_its_own_address_only(home: Path, server: str, own: bool) -> None:
    """Behind another port of this machine may be the tunnel to another one, which no daemon here would bring back."""
    assert daemon.is_own(server) is own


@pytest.mark.parametrize("listen", ["127.0.0.1:9000", "0.0.0.0:9000", "[::1]:9000"])
def test_a_daemon_may_be_used_to_another_address(home: Path, listen: str) -> None:
    """The one at which it listened last, as it wrote down itself."""
    words = ["python", "-m", "underpaint_backend", "serve", "--listen", listen]
    (home / "launch.json").write_text(json.dumps(words))
    assert daemon.is_own("ws://127.0.0.1:9000")
    assert daemon.is_own("ws://127.0.0.1:8738")
    assert not daemon.is_own("ws://127.0.0.1:8739")
    assert not daemon.is_own("wss://127.0.0.1:9000")


@pytest.mark.parametrize("damage", ["", "{}", '["--listen"]', '["--listen", "here"]', '["--listen", 3]', "[1]"])
def test_a_damaged_record_names_no_address(home: Path, damage: str) -> None:
    """Then only the usual one is the daemon's."""
    (home / "launch.json").write_text(damage)
    assert daemon.is_own("ws://127.0.0.1:8738")
    assert not daemon.is_own("ws://127.0.0.1:9000")
