"""What a folder in diffusers' layout must hold: the parts that its `model_index.json` lists, each whole."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .families import lacking_in
from .headers import BadFile, printable, read_header
from .plain_json import parse_json
from .selection import one_variant
from .store import part_is_whole

INDEX = "model_index.json"
NOT_NEEDED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of a pipeline that no family asks for, unless it sees reference pictures."""


def read_index(data: bytes) -> dict[str, Any]:
    """The object in a `model_index.json`. Raises `ValueError` if it is none."""
    return read_object(data, INDEX)


def read_object(data: bytes, name: str) -> dict[str, Any]:
    """The object in a file of this name. Raises `ValueError` if it is none."""
    try:
        found = parse_json(data)
    except ValueError:
        raise ValueError(f"its {name} is damaged") from None
    if not isinstance(found, dict):
        raise ValueError(f"its {name} is damaged")
    return found


def files_of(index: Mapping[str, Any]) -> list[str]:
    """Patterns of the files that a model needs, its `model_index.json` first."""
    return [INDEX, *(f"{part}/*" for part in parts_of(index))]


def gap_in(folder: Path, family: str = "") -> str:
    """What a folder lacks of a model, of this family if it is known, in words that follow its name; "" if nothing."""
    path = folder / INDEX
    try:
        status = path.stat()
        parts = _parts_in(path, status.st_mtime_ns, status.st_size)
    except FileNotFoundError:
        return f"has no {INDEX}" if folder.is_dir() else "is gone"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return f"cannot be read: {error}"
    unlisted = unlisted_in(parts, family)
    if unlisted:
        return unlisted
    gaps = [part for part in parts if not part_is_whole(folder / part)]
    return f"is not complete: {', '.join(gaps)} missing, or without weights in safetensors" if gaps else ""


def unlisted_in(parts: Collection[str], family: str) -> str:
    """What a list of parts has not that a model of this family needs, in words that follow a name; "" if nothing."""
    if not parts:
        return f"has a {INDEX} that lists no parts of a model"
    lacking = lacking_in(family, parts)
    return f"has no {lacking}: its {INDEX} does not list that" if lacking else ""


def damage_in(folder: Path) -> str:
    """Which weights of a folder without gaps cannot be used, and why, as far as headers tell; "" if none.

    Looked at are those that would be loaded. Headers are read again only of files that changed. Raises `OSError`.
    """
    path = folder / INDEX
    status = path.stat()
    for part in _parts_in(path, status.st_mtime_ns, status.st_size):
        names = sorted(path.name for path in (folder / part).glob("*.safetensors"))
        for name in one_variant(names, "fp16") or names:
            weights = folder / part / name
            status = weights.stat()
            reason = _reason_against(weights, status.st_mtime_ns, status.st_size)
            if reason:
                return f"{part}/{printable(name, 80)} cannot be used: {reason}"
    return ""


@lru_cache(maxsize=4096)
def _reason_against(weights: Path, modified: int, size: int) -> str:
    try:
        read_header(weights)
    except BadFile as error:
        return str(error)
    return ""


@lru_cache(maxsize=256)
def _parts_in(path: Path, modified: int, size: int) -> tuple[str, ...]:
    return parts_of(read_index(path.read_bytes()))


def parts_of(index: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts of a model that a `model_index.json` lists, but for those that no family asks for."""
    parts = [
        name
        for name, what in index.items()
        if isinstance(what, list) and len(what) == 2 and all(what) and name not in NOT_NEEDED
    ]
    return tuple(name for name in sorted(parts) if re.fullmatch(r"\w+", name, re.ASCII))
