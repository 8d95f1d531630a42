"""The golden vectors, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "protocol/vectors/messages.json").read_text(encoding="utf-8")
)
"""`messages`, and what is `refused`."""


def from_json(value: Any) -> Any:
    """A value of a vector as it travels: {"bytes": hexadecimal} stands for bytes."""
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"]) if set(value) == {"bytes"} else {k: from_json(v) for k, v in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list) else value
