"""Run a small measurement as its user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def measured(name: str, models: Path, *words: str) -> dict[str, Any]:
    """The figure that `bench/NAME.py` prints with `--json`."""
    command = [sys.executable, f"bench/{name}.py", "--models", str(models), "--json", *words]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert run.stdout, run.stderr
    figure: dict[str, Any] = json.loads(run.stdout)
    return figure
