"""Two tiny models with random weights, those of the engine's tests: real ones in everything but size and beauty.

They are built in a process of their own, so that whoever measures does not carry torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAINTER = "tiny-4"
"""Its UNet has 4 input channels, as Stable Diffusion's."""
INPAINTER = "tiny-9"
"""Its UNet sees the mask too."""


def build(folder: Path) -> None:
    """Write both models into `folder`. Raises `subprocess.CalledProcessError` if that fails."""
    words = [sys.executable, "-m", "endurance.models", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "bench")])}
    subprocess.run(words, env=environment, check=True, capture_output=True)


def main() -> None:
    """Build what the first word on the command line names the folder of."""
    from tests.backend.engine.tiny import build_tiny

    for name, channels in ((PAINTER, 4), (INPAINTER, 9)):
        build_tiny(Path(sys.argv[1]) / name, channels)


if __name__ == "__main__":
    main()
