"""Two tiny models with random weights, those of the engine's tests: real ones in everything but size and beauty.

A measurement has them built in a process of their own, so that it does not carry torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from underpaint_backend.models.catalog import DESCRIPTION

ROOT = Path(__file__).parents[2]
PAINTER = "tiny-4"
"""Its UNet has 4 input channels, as Stable Diffusion's."""
INPAINTER = "tiny-9"
"""Its UNet sees the mask too."""
SIDE = 32
"""Pixels along each side of what they paint; what is larger they paint at this size."""


def build(folder: Path) -> None:
    """Write both models into `folder`. Raises `subprocess.CalledProcessError` if that fails."""
    words = [sys.executable, "-m", "endurance.models", str(folder)]
    environment = {**os.environ, "PYTHONPATH": search_path(ROOT, ROOT / "bench")}
    subprocess.run(words, env=environment, check=True, capture_output=True)


def search_path(*folders: Path) -> str:
    """What `PYTHONPATH` has to be for these folders to come before what it is now."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


def write(folder: Path) -> None:
    """Write both models into `folder`, in this process."""
    from tests.backend.engine.tiny import build_tiny

    for name, channels in ((PAINTER, 4), (INPAINTER, 9)):
        entry = build_tiny(folder / name, channels)
        smaller = replace(entry.model, native_area=SIDE * SIDE)  # what is measured is not the painting
        (entry.folder / DESCRIPTION).write_text(json.dumps(smaller.to_wire()))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
