"""`underpaint models add-folder` and `remove-folder`: folders of other programs are searched where they are."""

from __future__ import annotations

import argparse

from ...models.catalog import default_roots, find_models
from ...models.folder_list import add_folder, remove_folder
from ...models.folders import folder_entries, sister_among
from ...models.headers import printable
from .. import CommandError, own_daemon
from .listing import count


def add(arguments: argparse.Namespace) -> int:
    """Search a folder from now on, and say what of it can be used."""
    if arguments.folder.expanduser().is_file():
        raise CommandError(
            f"{arguments.folder} is a file: name the folder that it lies in, or add it alone with "
            f"“underpaint models add NAME {arguments.folder}”"
        )
    folder = add_folder(arguments.folder)
    entries = find_models(default_roots()).values()
    contents = folder_entries(sister_among(entries), [folder])
    for entry in contents.entries:
        problem = f"; it cannot be used: {entry.model.detail}" if entry.model.state != "ready" else ""
        print(f"{entry.model.id}: {entry.model.name}{problem}")
    for broken in contents.broken:
        print(f"{printable(str(broken.path.relative_to(folder)), 300)} cannot be used: {broken.reason}")
    models, loras = count(len(contents.entries), "model"), count(len(contents.loras), "LoRA")
    own_daemon.models_there()
    print(f"{folder} is searched from now on: {models} and {loras} in it can be used.")
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """Search a folder no more."""
    folder = remove_folder(arguments.folder)
    own_daemon.models_there()
    print(f"{folder} is searched no more. Its files stay.")
    return 0
