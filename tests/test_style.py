"""Style, types and import rules are tests like others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_lint_is_green() -> None:
    """`run.py lint` finds nothing: ruff, mypy strict, the import rules, and Python 3.8 for what Krita loads."""
    run = subprocess.run([sys.executable, "run.py", "lint"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
