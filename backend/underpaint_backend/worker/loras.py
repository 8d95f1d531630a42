"""From the LoRAs that a request names to their files."""

from __future__ import annotations

from collections.abc import Sequence

from underpaint_protocol.locations import data_folder
from underpaint_protocol.messages import Adapter

from ..engine.lora import Choice, UnknownLora
from ..models.folders import folder_entries, folders


def files_of(adapters: Sequence[Adapter]) -> list[Choice]:
    """The file and the weight of each. A name is only looked up among what lies in the user's folders.

    Raises `UnknownLora`.
    """
    if not adapters:
        return []
    here = folder_entries(roots=(data_folder() / "loras", *folders()))
    choices: list[Choice] = []
    for adapter in adapters:
        found = here.lora(adapter.name)
        if found is None:
            raise UnknownLora(adapter.name)
        choices.append((found.path, adapter.weight))
    return choices
