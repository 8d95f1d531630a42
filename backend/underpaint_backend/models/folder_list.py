"""Which folders of other programs are searched for models.

`underpaint models add-folder PATH` notes a folder in `folders.json` of the data folder.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from underpaint_protocol.locations import data_folder

from .exceptions import ModelError
from .plain_json import read_json

log = logging.getLogger(__name__)


def folders_file() -> Path:
    """Where the added folders are noted."""
    return data_folder() / "folders.json"


def folders() -> tuple[Path, ...]:
    """The folders that were added, in this order. A damaged list counts as none, with a line in the log."""
    try:
        found = read_json(folders_file())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read: %s", folders_file(), error)
        return ()
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        log.warning("%s must hold a list of folders", folders_file())
        return ()
    return tuple(Path(path) for path in found)


def loras_folder() -> tuple[Path, ...]:
    """The folder of LoRAs that everybody may have in the data folder; nothing where nobody made it."""
    folder = data_folder() / "loras"
    return (folder,) if os.path.isdir(folder) else ()


def add_folder(path: Path) -> Path:
    """Note a folder, and give it back as it was noted. To add one twice is to add it once.

    Raises `ModelError` if there is no such folder, and `OSError` if it may not be read.
    """
    folder = path.expanduser().resolve()
    if not folder.is_dir():
        raise ModelError("invalid_field", detail=f"there is no folder {path}")
    with os.scandir(folder):
        pass
    if folder not in folders():
        _write((*folders(), folder))
    return folder


def remove_folder(path: Path) -> Path:
    """Forget a folder; its files stay.

    Raises `ModelError` if it was never added.
    """
    folder = path.expanduser().resolve()
    known = folders()
    if folder not in known:
        raise ModelError("invalid_field", detail=f"the folder {path} was not added")
    _write(other for other in known if other != folder)
    return folder


def _write(paths: Iterable[Path]) -> None:
    file = folders_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps([str(path) for path in paths], indent=2) + "\n", encoding="utf-8")
    os.replace(new, file)
