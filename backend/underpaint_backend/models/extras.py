"""What is installed only where somebody asked for it: libraries that read or make quantised weights.

They are asked for by name and never imported here.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .plain_json import read_json

GGUF, TORCHAO, BITSANDBYTES = "gguf", "torchao", "bitsandbytes"

FOR_PRECISION = {"int8": TORCHAO, "nf4": BITSANDBYTES}
"""The extra that a precision needs."""


def lacking(extra: str) -> str:
    """What to do about an extra that is not installed; "" if it is."""
    if find_spec(extra) is not None:
        return ""
    return f"install it with: .venv/bin/pip install 'underpaint[{extra}]'"


def quantiser_of(config: Any) -> str:
    """Which library packed the weights of a network with this configuration; "" if none did.

    `config` is what its config.json holds.
    """
    how = config.get("quantization_config") if isinstance(config, dict) else None
    if not isinstance(how, dict):
        return ""
    method = how.get("quant_method")
    if method is None and (how.get("load_in_4bit") or how.get("load_in_8bit")):
        return BITSANDBYTES  # as its first releases wrote it
    return str(method)[:60]


def reason_against(folder: Path) -> str:
    """Why the model in a folder of diffusers' layout cannot be read for want of an extra; "" if it can."""
    for path in sorted(folder.glob("*/config.json")):
        try:
            status = path.stat()
            quantiser = _quantiser_in(path, status.st_mtime_ns, status.st_size)
        except (OSError, ValueError):  # whoever loads it says so
            continue
        if quantiser and quantiser not in (TORCHAO, BITSANDBYTES):
            return f"its {path.parent.name} is packed by {quantiser}, which is not read"
        if quantiser and (words := lacking(quantiser)):
            return f"its {path.parent.name} is packed by {quantiser}; {words}"
    return ""


@lru_cache(maxsize=1024)
def _quantiser_in(path: Path, modified: int, size: int) -> str:
    return quantiser_of(read_json(path))
