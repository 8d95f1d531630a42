"""From the LoRAs that a request names to their files."""

from __future__ import annotations

from collections.abc import Sequence

from underpaint_protocol.errors import describe
from underpaint_protocol.messages import Adapter

from ..engine.exceptions import UnknownLora
from ..engine.lora import Choice
from ..models.folder_list import folders, loras_folder
from ..models.folders import Contents, folder_entries
from .failures import Refused


def files_of(adapters: Sequence[Adapter]) -> list[Choice]:
    """The file and the weight of each. A name is only looked up among what lies in the user's folders.

    Raises `UnknownLora`, and `Refused` for a file of that name that is no LoRA that can be used.
    """
    if not adapters:
        return []
    here = folder_entries(roots=(*loras_folder(), *folders()))
    choices: list[Choice] = []
    for adapter in adapters:
        found = here.lora(adapter.name)
        if found is None:
            raise _refusal(adapter.name, here)
        choices.append((found.path, adapter.weight))
    return choices


def _refusal(name: str, here: Contents) -> UnknownLora | Refused:
    """Why there is no such LoRA: what lies there under its name, if anything does."""
    for broken in here.broken:
        if name in (broken.path.stem, broken.path.name):
            return Refused(describe("broken_lora", lora=name, detail=broken.reason))
    for entry in here.entries:
        if entry.checkpoint is not None and name in (entry.checkpoint.stem, entry.checkpoint.name):
            detail = f"it is a model: choose it in the list of models, as {entry.model.id}"
            return Refused(describe("broken_lora", lora=name, detail=detail))
    return UnknownLora(name)
