"""JSON out of files that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """What is written in `text`. Raises `ValueError` if it is not JSON, or nested so deep that nobody means it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path: Path) -> Any:
    """What the file `path` holds. Raises `OSError`, and `ValueError` as `parse_json`."""
    return parse_json(path.read_text(encoding="utf-8"))
