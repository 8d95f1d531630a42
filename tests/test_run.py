"""`run.py` as someone types it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pythons import clean_environment, interpreter

ROOT = Path(__file__).parents[1]


def run(*words: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "run.py", *words], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=300
    )


def test_an_old_python_gets_a_sentence() -> None:
    """Who starts it with Python 3.8 is told what is needed, instead of a traceback."""
    python = interpreter("3.8")
    outcome = run("test", python=python)
    assert outcome.returncode == 2
    assert outcome.stderr == f"Underpaint needs Python 3.11 or later; this is {version_of(python)}.\n"


def version_of(python: str) -> str:
    return subprocess.run([python, "--version"], capture_output=True, text=True).stdout.split()[1]


@pytest.mark.parametrize("words", [["bench"], ["bench", "nothing"], ["train"], ["train", "sdxl"]])
def test_an_unknown_name_is_answered_with_the_known_ones(words: list[str]) -> None:
    """Who names a measurement or model that is not there sees which there are."""
    outcome = run(*words)
    assert outcome.returncode == 2
    assert ("start" if words[0] == "bench" else "primer-inpaint") in outcome.stderr


def test_a_measurement_speaks_to_programs_too() -> None:
    """`--json` prints one object with name, value, unit, goal and rows."""
    outcome = run("bench", "start", "--runs", "1", "--json")
    figure = json.loads(outcome.stdout)
    assert (figure["name"], figure["unit"]) == ("start", "ms")
    assert figure["value"] > 0
    assert figure["rows"]


@pytest.mark.skipif(sys.platform != "linux", reason="a copy of a program of the system has to run under another name")
def test_a_krita_that_runs_is_left_alone(tmp_path: Path) -> None:
    """Its settings and its plugin are not written while it runs, for it writes them itself when it ends."""
    program, home = tmp_path / "bin" / "krita", tmp_path / "home"
    program.parent.mkdir()
    shutil.copy(shutil.which("sleep") or "", program)
    places = {"HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "XDG_CONFIG_HOME": str(home / "config")}
    environment = {**clean_environment(), **places, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    running = subprocess.Popen([str(program), "60"])
    try:
        outcome = subprocess.run(
            [sys.executable, "run.py", "krita"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )
    finally:
        running.kill()
        running.wait()
    assert (outcome.returncode, outcome.stderr) == (
        2,
        "Krita is running. Close it first: it reads plugins when it starts, and writes its settings when it ends.\n",
    )
    assert not home.exists()
