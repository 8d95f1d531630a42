"""The demonstration, as a newcomer runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageChops

ROOT = Path(__file__).parents[1]


def test_the_demonstration_paints_into_the_photograph(tmp_path: Path) -> None:
    """It writes the photograph before and after, changed in the selection alone, and the previews side by side."""
    words = ["demo/demo.py", "a blue circle", "--seed", "3", "--folder", str(tmp_path)]
    run = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    before, after = (Image.open(tmp_path / name).convert("RGB") for name in ("before.png", "after.png"))
    left, top, right, bottom = ImageChops.difference(before, after).getbbox() or (0, 0, 0, 0)
    assert 0.1 * before.width < left < before.width / 2 < right < 0.9 * before.width
    assert 0.05 * before.height < top < before.height / 2 < bottom < 0.95 * before.height
    red, _, blue = after.getpixel((before.width // 2, before.height // 2))  # type: ignore[misc]
    assert blue > red
    with Image.open(tmp_path / "steps.png") as steps:
        assert steps.width > 4 * steps.height
    assert "run.py krita" in run.stdout
