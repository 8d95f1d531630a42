"""Which of its schedulers a model can use: what its `scheduler_config.json` says, as far as that is in order."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from underpaint_protocol.messages import Model

from .plain_json import read_json
from .schedulers import OWN, is_hybrid, noted_in, offered, parse_hybrid

NAME = "scheduler_config.json"
DIFFUSION_FAMILIES = ("stable_diffusion", "stable_diffusion_xl", "classic")
"""Families in which models differ in the schedulers that they can use."""


def with_usable_schedulers(model: Model, folder: Path, tensors: Container[str] = ()) -> Model:
    """The model with those schedulers that lead it to its picture.

    `folder` has its scheduler's configuration; `tensors` are the names in its file, if it is a single one. Without a
    configuration that can be read it stays as it is: whoever loads it says what is wrong.
    """
    config = _config_in(folder) if model.family in DIFFUSION_FAMILIES else None
    if config is None:
        return model
    usable = (*offered(noted_in(config, tensors)), OWN)
    kept = tuple(name for name in model.schedulers if name in usable) or usable[:-1]
    chosen = model.default_scheduler
    return replace(model, schedulers=kept, default_scheduler=chosen if _is_among(chosen, kept) else kept[0])


def _is_among(name: str, known: tuple[str, ...]) -> bool:
    if not is_hybrid(name):
        return name in known
    try:
        parse_hybrid(name, known)
    except ValueError:
        return False
    return True


def _config_in(folder: Path) -> Mapping[str, Any] | None:
    path = folder / NAME
    try:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=1024)
def _read(path: Path, modified: int, size: int) -> Mapping[str, Any] | None:
    found = read_json(path)
    return found if isinstance(found, dict) else None
