"""Folders that somebody copied into `models/` and that are in no list, with what to do about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from .catalog import DESCRIPTION, Entry
from .layout import INDEX, damage_in, gap_in


def sentences_about_idle(root: Path, entries: Iterable[Entry]) -> Iterator[str]:
    """A sentence for each folder of `root` in diffusers' layout to which none of `entries` leads.

    Those that are described are not among them: if such a one is left out, the log says why.
    """
    used = {path.resolve() for entry in entries for path in (entry.folder, *entry.elsewhere.values())}
    for index in sorted([*root.glob(f"*/{INDEX}"), *root.glob(f"*/*/{INDEX}")]):
        folder = index.parent
        described = (folder / DESCRIPTION).exists()
        if not described and not any(path.is_relative_to(folder.resolve()) for path in used):
            yield _sentence(folder)


def _sentence(folder: Path) -> str:
    gap = gap_in(folder)
    if gap:
        return f"The folder {folder} cannot be used: it {gap}."
    try:
        damage = damage_in(folder)
    except OSError as error:
        damage = f"it cannot be read: {error.strerror}"
    if damage:
        return f"The folder {folder} cannot be used: {damage}."
    return f"The folder {folder} is not in the list yet: “underpaint models add NAME {folder}” puts it there."
