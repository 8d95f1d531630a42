"""`run.py` as someone types it."""

from __future__ import annotations

import json
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
