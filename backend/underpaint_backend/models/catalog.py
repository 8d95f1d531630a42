"""The models on this machine: folders in diffusers' layout that carry an `underpaint.json`.

    {"id": "primer-inpaint", "name": "Primer (built in)", "family": "stable_diffusion", "tasks": ["inpaint", ...],
     "native_area": 16384, "size_multiple": 8, "default_steps": 12, "default_guidance": 3.0,
     "default_scheduler": "ddim", "schedulers": ["ddim", ...] (optional), "licence": "MIT"}

The built-in models lie beside this file; the user's own in `models/` of Underpaint's data folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underpaint_protocol.exceptions import InvalidField
from underpaint_protocol.locations import data_folder
from underpaint_protocol.messages import Model

log = logging.getLogger(__name__)

DESCRIPTION = "underpaint.json"
SCHEDULERS = ("ddim", "ddpm", "pndm", "euler", "dpm++2m", "unipc")
"""The schedulers of diffusion models, by the names that artists know."""


@dataclass(frozen=True)
class Entry:
    """A model and where its files are.

    `folder` is in diffusers' layout. Where there is a `checkpoint`, a single file, parts that it holds come from there;
    the folder has the configurations and tokenizers, and what the file lacks.
    """

    model: Model
    folder: Path
    checkpoint: Path | None = None


def default_roots() -> tuple[Path, ...]:
    """The folders that are searched for models: the built-in ones and the user's own."""
    return (Path(__file__).parent, data_folder() / "models")


def find_models(roots: Iterable[Path]) -> dict[str, Entry]:
    """All models in `roots`, by id. A folder whose description is damaged is left out, with a line in the log."""
    return {entry.model.id: entry for entry in _entries(roots)}


def _entries(roots: Iterable[Path]) -> Iterator[Entry]:
    for root in roots:
        for description in sorted(root.glob(f"*/{DESCRIPTION}")):
            try:
                if not description.resolve().is_relative_to(root.resolve()):
                    raise ValueError("it lies elsewhere; name that folder with --models instead of linking to it")
                if not description.with_name("model_index.json").is_file():
                    raise ValueError("it has no model_index.json")
                yield Entry(_read(description), description.parent)
            except (OSError, ValueError, InvalidField) as error:
                log.warning("the model in %s is left out: %s", description.parent, error)


def _read(description: Path) -> Model:
    wire: Any = json.loads(description.read_text(encoding="utf-8"))
    if not isinstance(wire, dict):
        raise ValueError(f"{description.name} must hold one object")
    return Model.from_wire({"schedulers": SCHEDULERS, **wire})
