"""`underpaint models`: what can be painted with here, what could be, and how it gets here.

Here is what can be typed; what is done then is one module for each kind of action.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ...models.adding import FAMILIES
from ...models.exceptions import ModelError
from .. import CommandError
from . import add, folders, listing, pull, remove, verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions; without one, the models are listed."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="list the models that are here and those that can be fetched")
    show = actions.add_parser("show", help="say everything about a model")
    show.add_argument("model", metavar="MODEL")
    fetch = actions.add_parser("pull", help="fetch models; what was begun goes on where it stopped")
    fetch.add_argument("models", nargs="+", metavar="MODEL")
    fetch.add_argument("--update", action="store_true", help="ask whether there is a newer one")
    _add_hub(fetch)
    new = actions.add_parser("add", help="add a model of the hub, or a folder or file of this machine, to the list")
    new.add_argument("model", metavar="MODEL", help="what it shall be called: small letters, digits, . _ - / :")
    new.add_argument("where", metavar="OWNER/NAME|FOLDER|FILE", help="a repository of the hub, a folder or a file")
    new.add_argument("--name", help="how it is shown")
    new.add_argument("--family", choices=tuple(FAMILIES), help="instead of the one that its pipeline tells")
    new.add_argument("--configuration", metavar="NAME", help="of a file, such as flux1-kontext, instead of its own")
    new.add_argument("--revision", help="a branch or a commit of the repository (default: main)")
    new.add_argument("--variant", help="of a repository: which weights, where there are several (default: fp16)")
    new.add_argument("--licence", default="", help="shown in the list")
    _add_hub(new)
    for name, what in (
        ("add-folder", "use the single files of ComfyUI, A1111 or others where they are"),
        ("remove-folder", "search a folder no more; its files stay"),
    ):
        folder = actions.add_parser(name, help=what)
        folder.add_argument("folder", type=_folder, metavar="FOLDER")
    gone = actions.add_parser("remove", help="delete a model's files, but for what other models need")
    gone.add_argument("model", metavar="MODEL")
    gone.add_argument("--yes", action="store_true", help="do not ask")
    check = actions.add_parser("verify", help="read every byte again and compare it with its hash")
    check.add_argument("models", nargs="*", metavar="MODEL", help="all that are here, if none is named")
    check.add_argument("--repair", action="store_true", help="fetch again what is damaged or missing")
    _add_hub(check)


def _folder(word: str) -> Path:
    if not word:  # a variable of the shell that has no value, and not the folder where one is
        raise argparse.ArgumentTypeError("must be the path of a folder; it was empty")
    return Path(word)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; the exit code is 1 if the hub, the disk or the files were not as they should be."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": listing.list_models,
        "show": listing.show,
        "pull": pull.run,
        "add": add.run,
        "add-folder": folders.add,
        "remove-folder": folders.remove,
        "remove": remove.run,
        "verify": verify.run,
    }
    try:
        return actions[arguments.action or "list"](arguments)
    except ModelError as error:
        if error.info.code == "invalid_field":
            raise CommandError(error.info.message) from None
        print(f"underpaint: {error.info.message}\n{error.info.hint}", file=sys.stderr)
        return 1


def _add_hub(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint", metavar="URL", help="another hub, or a mirror (default: HF_ENDPOINT, or the hub)")
    parser.add_argument("--hub-token", metavar="TOKEN", help="for gated models (default: HF_TOKEN, or the hub's file)")
    parser.add_argument("--offline", action="store_true", help="ask nobody; use what is here")
