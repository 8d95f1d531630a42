"""Which files below a folder may be weights, by their names alone.

ComfyUI and A1111 are known by their subfolders; of any other folder, all that lies below is looked at.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from .gguf import ENDING as GGUF
from .headers import PICKLES, printable

log = logging.getLogger(__name__)

LAYOUTS = (
    ("checkpoints", "diffusion_models", "unet", "loras"),  # ComfyUI
    ("Stable-diffusion", "Lora"),  # A1111 and Forge
)
"""Subfolders with what can be used. Others hold parts of models, which come with a sister model instead."""
MOST_FILES = 10_000
DEEPEST = 8
"""Levels of folders below the one that was added."""
SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def weight_files(roots: Iterable[Path]) -> list[Path]:
    """The files in these folders that may be weights, each once, in the order of their paths."""
    found: dict[Path, None] = {}
    for root in roots:
        for place in _places(root):
            for path in _below(place, 0, set()):
                if len(found) >= MOST_FILES:
                    log.warning("there are more than %d files in the folders; the rest is left out", MOST_FILES)
                    return sorted(found)
                found[path] = None
    return sorted(found)


def _places(root: Path) -> list[Path]:
    """The folders to look into: those that other programs have, or the root itself."""
    for base in (root, root / "models"):
        known = [base / name for layout in LAYOUTS for name in layout if os.path.isdir(base / name)]
        if known:
            return known
    return [root]


def _below(folder: Path, depth: int, seen: set[Path]) -> Iterator[Path]:
    """The files below a folder. Links are followed, for people keep models on other disks, but never in circles."""
    try:
        real = folder.resolve()
        if depth > DEEPEST or real in seen:
            return
        seen.add(real)
        children = sorted(folder.iterdir())
    except (OSError, ValueError) as error:  # which it is for a name that no folder can have
        log.warning("the folder %s cannot be read: %s", printable(str(folder), 300), getattr(error, "strerror", error))
        return
    if any(child.name in ("config.json", "model_index.json") for child in children):
        return  # a model in diffusers' layout, or a part of one
    for child in children:
        if child.name.startswith("."):
            continue
        if os.path.isdir(child):  # which, unlike the path's own method, minds no folder that may not be read
            yield from _below(child, depth + 1, seen)
        elif child.suffix.lower() in (".safetensors", GGUF, *PICKLES) and not SHARD.search(child.stem):
            yield child
