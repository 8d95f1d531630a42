"""A picture whose document is gone goes into a file. Runs in the network thread; `QImage` is at home in any thread."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Mapping, Union

from ._vendor.underpaint_protocol import locations
from .events import Kept, NotKept
from .pixels import KritaPixels
from .qt import QtGui

LONGEST_NAME = 40
"""Characters of the prompt in a file's name."""


def recovered_folder() -> Path:
    """Where such pictures are; it need not exist yet."""
    return locations.data_folder() / "recovered"


def rescue(job: str, pixels: KritaPixels, width: int, height: int, recipe: Mapping[str, Any]) -> Union[Kept, NotKept]:
    """Write a picture as a PNG with its alpha, and `recipe`, which says how it was made, as text inside.

    `pixels` is blue, green, red, alpha. The same job has the same file: a second time replaces the first.
    """
    try:
        return Kept(job, str(_write(job, pixels, width, height, recipe)))
    except OSError as error:
        return NotKept(job, str(error))


def _write(job: str, pixels: KritaPixels, width: int, height: int, recipe: Mapping[str, Any]) -> Path:
    folder = recovered_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_slug(str(recipe.get('prompt', '')))}-{job[:8]}.png"
    picture = QtGui.QImage(pixels, width, height, QtGui.QImage.Format.Format_ARGB32)
    picture.setText("underpaint", json.dumps(recipe, ensure_ascii=False))
    new = path.with_suffix(".new")
    if not picture.save(str(new), "PNG"):
        raise OSError(f"{path} cannot be written")
    os.replace(new, path)
    return path


def _slug(prompt: str) -> str:
    """The prompt as a name that every file system takes."""
    words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-_")
    return words[:LONGEST_NAME].strip("-_") or "picture"
