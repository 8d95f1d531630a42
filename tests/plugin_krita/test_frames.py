"""Previews, developed by the Qt that Krita has."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import PLUGIN

DEVELOP = """
import sys
from underpaint_krita.frames import developed
jpeg, mask = (open(name, "rb").read() if name else None for name in sys.argv[1:3])
try:
    pixels = developed(jpeg, 64, 48, mask)
except ValueError as error:
    sys.exit(f"ValueError: {error}")
open(sys.argv[3], "wb").write(pixels)
"""


WHILE_SAVING = """
import sys, threading, time
from underpaint_krita.frames import developed
from underpaint_krita.qt import QtGui

application = QtGui.QGuiApplication(["frames", "-platform", "offscreen"])
jpeg, done, pictures = open(sys.argv[1], "rb").read(), threading.Event(), []

def develop():
    while not done.is_set():
        pictures.append(len(developed(jpeg, 64, 48, None)))

thread = threading.Thread(target=develop)
thread.start()
pixmap, end = QtGui.QPixmap(64, 64), time.monotonic() + 2
while time.monotonic() < end:
    pixmap.save(sys.argv[2], "PNG")
done.set()
thread.join()
print(len(pictures))
"""

Develop = Callable[[bytes, bytes | None], np.ndarray]


@pytest.fixture
def develop(kritas_python: str, tmp_path: Path) -> Develop:
    """Develop a JPEG to 64 x 48 pixels in a Python with PyQt5."""
    if subprocess.run([kritas_python, "-c", "import PyQt5.QtGui"], capture_output=True).returncode:
        pytest.skip("PyQt5 is not installed: apt install python3-pyqt5")

    def run(jpeg: bytes, mask: bytes | None) -> np.ndarray:
        (tmp_path / "jpeg").write_bytes(jpeg)
        (tmp_path / "mask").write_bytes(mask or b"")
        words = [tmp_path / "jpeg", tmp_path / "mask" if mask is not None else "", tmp_path / "pixels"]
        command = [kritas_python, "-B", "-c", DEVELOP, *map(str, words)]
        process = subprocess.run(command, cwd=PLUGIN, capture_output=True, text=True)
        if process.returncode:
            raise RuntimeError(process.stderr)
        return np.frombuffer((tmp_path / "pixels").read_bytes(), np.uint8).reshape(48, 64, 4)

    return run


def _jpeg(mode: str = "RGB") -> bytes:
    """16 x 12 pixels: red on the left, blue on the right."""
    picture = Image.new("RGB", (16, 12), (220, 30, 20))
    picture.paste((20, 30, 220), (8, 0, 16, 12))
    file = io.BytesIO()
    picture.convert(mode).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def test_a_preview_becomes_pixels_of_a_layer(develop: Develop) -> None:
    """Scaled to the box, in Krita's order of channels, with the selection as alpha."""
    mask = np.arange(64 * 48, dtype=np.uint32).astype(np.uint8).reshape(48, 64)
    pixels = develop(_jpeg(), mask.tobytes())
    assert np.array_equal(pixels[..., 3], mask)
    assert np.abs(pixels[24, 4, :3].astype(int) - (20, 30, 220)).max() < 12
    assert np.abs(pixels[24, 60, :3].astype(int) - (220, 30, 20)).max() < 12


def test_a_preview_is_scaled_smoothly(develop: Develop) -> None:
    """Between two colours there are others: no blocks."""
    row = develop(_jpeg(), None)[24, :, 2]
    assert ((row > 60) & (row < 180)).any()


def test_without_a_selection_a_preview_is_opaque(develop: Develop) -> None:
    """It covers the canvas."""
    assert (develop(_jpeg(), None)[..., 3] == 255).all()


def test_a_grey_preview_works(develop: Develop) -> None:
    """A JPEG with one channel gives three equal ones."""
    pixels = develop(_jpeg("L"), None)
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_krita_does_not_stand_still(kritas_python: str, develop: Develop, tmp_path: Path) -> None:
    """Developing never waits for Python's lock while it holds one of Qt's: the main thread may save pictures.

    Reading from a QBuffer with QImageReader did, and Krita hung for ever within seconds.
    """
    (tmp_path / "jpeg").write_bytes(_jpeg())
    command = [kritas_python, "-B", "-c", WHILE_SAVING, str(tmp_path / "jpeg"), str(tmp_path / "png")]
    run = subprocess.run(command, cwd=PLUGIN, capture_output=True, text=True, timeout=60)
    assert int(run.stdout) > 10, run.stderr


def test_what_is_not_a_jpeg_is_refused(develop: Develop) -> None:
    """No other format is opened."""
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG")
    for data in (b"", b"nonsense", png.getvalue()):
        with pytest.raises(RuntimeError, match="ValueError: the preview is not a JPEG"):
            develop(data, None)
