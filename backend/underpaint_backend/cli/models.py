"""`underpaint models`: what can be painted with here, what could be, and how it gets here."""

from __future__ import annotations

import argparse
import difflib
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

from underpaint_protocol.exceptions import InvalidField

from ..models import adding, folders
from ..models.catalog import Entry, default_roots, find_models, locate
from ..models.download import Download, Progress, in_gb
from ..models.exceptions import ModelError
from ..models.hub import Denied, Hub, HubError, Line, NotReached, NotThere, Settings, settings
from ..models.layout import read_index, read_object
from ..models.offers import Offer, Source, check_id, offers
from ..models.removal import remove
from ..models.selection import needed
from ..models.store import Store, cache_folder
from ..models.verify import discard, verify
from . import CommandError, listing, own_daemon

QUIET_INTERVAL = 10.0
"""Seconds between two lines of progress where there is no terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions; without one, the models are listed."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="list the models that are here and those that can be fetched")
    show = actions.add_parser("show", help="say everything about a model")
    show.add_argument("model", metavar="MODEL")
    pull = actions.add_parser("pull", help="fetch models; what was begun goes on where it stopped")
    pull.add_argument("models", nargs="+", metavar="MODEL")
    pull.add_argument("--update", action="store_true", help="ask whether there is a newer one")
    _add_hub(pull)
    add = actions.add_parser("add", help="add a model of the hub, or a folder or file of this machine, to the list")
    add.add_argument("model", metavar="MODEL", help="what it shall be called: small letters, digits, . _ - / :")
    add.add_argument("where", metavar="OWNER/NAME|FOLDER|FILE", help="a repository of the hub, a folder or a file")
    add.add_argument("--name", help="how it is shown")
    add.add_argument("--family", choices=tuple(adding.FAMILIES), help="instead of the one that its pipeline tells")
    add.add_argument("--configuration", metavar="NAME", help="of a file, such as flux1-kontext, instead of its own")
    add.add_argument("--revision", help="a branch or a commit of the repository (default: main)")
    add.add_argument("--variant", help="of a repository: which weights, where there are several (default: fp16)")
    add.add_argument("--licence", default="", help="shown in the list")
    _add_hub(add)
    for name, what in (
        ("add-folder", "use the single files of ComfyUI, A1111 or others where they are"),
        ("remove-folder", "search a folder no more; its files stay"),
    ):
        folder = actions.add_parser(name, help=what)
        folder.add_argument("folder", type=_folder, metavar="FOLDER")
    remove_ = actions.add_parser("remove", help="delete a model's files, but for what other models need")
    remove_.add_argument("model", metavar="MODEL")
    remove_.add_argument("--yes", action="store_true", help="do not ask")
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
        "list": _list,
        "show": _show,
        "pull": _pull,
        "add": _add,
        "add-folder": _add_folder,
        "remove-folder": _remove_folder,
        "remove": _remove,
        "verify": _verify,
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


# list and show


def _list(arguments: argparse.Namespace) -> int:
    entries = find_models(default_roots())
    print(listing.table(entries, own_daemon.misfits(entries.values())))
    files = listing.files(folders.folder_entries(roots=(*folders.loras_folder(), *folders.folders())))
    if files:
        print(f"\n{files}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    offer, entry = _offers().get(arguments.model), _entry(arguments.model)
    misfit = own_daemon.misfits([entry]).get(entry.model.id, "")
    print(listing.description(entry, offer, misfit))
    return 0


# pull


def _pull(arguments: argparse.Namespace) -> int:
    how = _settings(arguments)
    wanted = [offer for offer in map(_to_fetch, arguments.models) if offer is not None]
    for offer in wanted:
        _fetch(offer, how, arguments.update)
    own_daemon.models_there()
    return 0


def _to_fetch(name: str) -> Offer | None:
    """The offer of this name; None if the model lies in a folder of this machine, ready."""
    offer = _offers().get(name)
    entry = _entry(name) if offer is None else None
    if entry is None:
        return offer
    if entry.model.state != "ready":
        raise CommandError(f"{name} lies in {entry.checkpoint or entry.folder}, and {entry.model.detail}")
    print(f"{name} is here already.")
    return None


def _fetch(offer: Offer, how: Settings, update: bool = False) -> None:
    name, store = offer.model.id, _store()
    if not update and locate(offer, store, default_roots()).model.state == "ready":
        print(f"{name} is here already.")
        return
    screen = _Screen()
    screen.ask(how.endpoint)
    try:
        Download(offer, store, how, update=update).run(screen.show, Event())
    except KeyboardInterrupt:
        screen.end()
        print(f"Stopped. What came is kept; “underpaint models pull {name}” goes on from there.", file=sys.stderr)
        raise
    except ModelError:
        screen.end()
        raise
    screen.end()
    print(f"{name} is here.")


class _Screen:
    """One line that changes, or a line now and then where there is no terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said = -QUIET_INTERVAL

    def show(self, progress: Progress) -> None:
        """Say how far it is."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{in_words(progress)[:width]:{width}}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._said >= QUIET_INTERVAL:
            self._said = time.monotonic()
            print(in_words(progress), file=sys.stderr, flush=True)

    def ask(self, endpoint: str) -> None:
        """Say who is asked, before anything is known: that may take a while where there is no network."""
        if self._terminal:
            print(f"Asking {endpoint}…", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line that changes."""
        if self._terminal:
            print(file=sys.stderr)


def in_words(progress: Progress) -> str:
    """As "4.2 GB of 15.9 GB, 26 %, 11.2 MB/s, 17 min left: transformer/...safetensors"."""
    share = 100 * progress.done // max(progress.total, 1)
    words = [f"{in_gb(progress.done)} of {in_gb(progress.total)}", f"{share} %"]
    if progress.bytes_per_second > 0:
        words.append(f"{in_gb(progress.bytes_per_second)}/s")
    if progress.seconds_left is not None:
        words.append(f"{_time(progress.seconds_left)} left")
    return f"{', '.join(words)}: {progress.file}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# add


def _add(arguments: argparse.Namespace) -> int:
    name = arguments.model
    try:
        where = adding.place_of(arguments.where)
        _refuse_what_does_not_apply(arguments, where)
        check_id(name)
        known = _offers().get(name)
        if (known is None or not known.own) and name in find_models(default_roots()):
            raise CommandError(f"there is a model called {name} already; choose another name")
        if isinstance(where, str):
            table = _table(arguments, where)
        elif where.is_file():
            table = folders.file_table(name, where, arguments.configuration)
        else:
            table = adding.folder_table(name, where, arguments.family)
        for key in ("name", "licence"):
            if getattr(arguments, key):
                table[key] = getattr(arguments, key)
        offer = adding.add(table)
    except (ValueError, InvalidField) as error:
        raise CommandError(str(error)) from None
    own_daemon.models_there()
    print(f"{name} is in the list: a model of the family {offer.model.family}.")
    if known is not None:
        print("It takes the place of your earlier one of this name.")
    if offer.local is None:
        print(f"Fetch it with “underpaint models pull {name}” ({in_gb(offer.model.download)}).")
    return 0


def _refuse_what_does_not_apply(arguments: argparse.Namespace, where: Path | str) -> None:
    """Raises `CommandError` if an option was given that says nothing of what is added."""
    if isinstance(where, str):
        what, applies = "a repository of the hub", {"family", "revision", "variant", "endpoint", "hub_token"}
    elif where.is_file():
        what, applies = "a file, of which its header or --configuration says what it is", {"configuration"}
    else:
        what, applies = "a folder, of which its model_index.json or --family says what it is", {"family"}
    for option in ("family", "configuration", "revision", "variant", "endpoint", "hub_token"):
        if getattr(arguments, option) is not None and option not in applies:
            word = f"--{option.replace('_', '-')}"
            raise CommandError(f"{word} does not apply to {arguments.where}, which is {what}. Leave it away")


def _table(arguments: argparse.Namespace, where: str) -> dict[str, object]:
    """An entry for a repository, as its `model_index.json` and its list of files tell. Raises `ValueError`."""
    how = _settings(arguments)
    if how.offline:
        raise ValueError("what a repository holds can only be asked of the hub, and working offline was asked for")
    variant = "fp16" if arguments.variant is None else arguments.variant
    source = Source(where, ("*", "*/*"), "main" if arguments.revision is None else arguments.revision, variant)
    hub = Hub(how, Event(), Line())
    try:
        commit = source.revision if source.pinned else hub.commit(source.repository, source.revision)
        tree = hub.tree(source.repository, commit)
        if "model_index.json" not in tree.files:
            raise ValueError(f"{source.repository} has no model_index.json, so it is no model in diffusers' layout")

        def config(part: str) -> dict[str, object] | None:
            path = f"{part}/config.json"
            return read_object(hub.text(source.repository, commit, path), path) if path in tree.files else None

        index = read_index(hub.text(source.repository, commit, "model_index.json"))
        described = adding.told_by_parts(adding.describe_pipeline(index, arguments.family), config)
    except HubError as error:
        if isinstance(error, NotThere) or (isinstance(error, Denied) and error.code == "RepoNotFound"):
            raise ValueError(f"there is no folder {where} here, and no such repository at {how.endpoint}") from None
        hint = ". A mirror is named with --endpoint or HF_ENDPOINT" if isinstance(error, NotReached) else ""
        raise ValueError(
            f"there is no folder {where} here, and {how.endpoint} says nothing of it: {error}{hint}"
        ) from None
    wanted = Source(source.repository, tuple(described["files"]), source.revision, source.variant)
    size = sum(tree.files[path].size for path in needed(wanted, tree.files))
    named = {"id": arguments.model, "name": where.partition("/")[2]}
    return {
        **named,
        **described,
        "download": size,
        "repository": wanted.repository,
        "revision": wanted.revision,
        "variant": wanted.variant,
    }


def _add_folder(arguments: argparse.Namespace) -> int:
    if arguments.folder.expanduser().is_file():
        raise CommandError(
            f"{arguments.folder} is a file: name the folder that it lies in, or add it alone with "
            f"“underpaint models add NAME {arguments.folder}”"
        )
    folder = folders.add_folder(arguments.folder)
    entries = find_models(default_roots()).values()
    contents = folders.folder_entries(folders.sister_among(entries), [folder])
    for entry in contents.entries:
        problem = f"; it cannot be used: {entry.model.detail}" if entry.model.state != "ready" else ""
        print(f"{entry.model.id}: {entry.model.name}{problem}")
    for broken in contents.broken:
        print(f"{broken.path.relative_to(folder)} cannot be used: {broken.reason}")
    models, loras = listing.count(len(contents.entries), "model"), listing.count(len(contents.loras), "LoRA")
    own_daemon.models_there()
    print(f"{folder} is searched from now on: {models} and {loras} in it can be used.")
    return 0


def _remove_folder(arguments: argparse.Namespace) -> int:
    folder = folders.remove_folder(arguments.folder)
    own_daemon.models_there()
    print(f"{folder} is searched no more. Its files stay.")
    return 0


# remove


def _remove(arguments: argparse.Namespace) -> int:
    offer, store = _removable(arguments.model), _store()
    name = offer.model.id
    if offer.local is not None:
        what = "folder" if offer.folder is not None else "file"
        _sure(arguments.yes, f"Take {name} out of the list? Its {what} {offer.local} stays.")
        adding.forget(name)
        print(f"{name} is out of the list. Its {what} {offer.local} was not touched.")
    elif not any(store.repository(source.repository).exists() for source in offer.sources):
        _remove_what_is_not_there(arguments, offer)
    else:
        _sure(arguments.yes, f"Delete the files of {name}?")
        _remove_files(offer, store)
    own_daemon.models_there()
    return 0


def _removable(name: str) -> Offer:
    offer = _offers().get(name)
    entry = _entry(name) if offer is None else None
    if offer is not None:
        return offer
    assert entry is not None
    if entry.checkpoint is not None:
        raise CommandError(
            f"{name} is the file {entry.checkpoint}. Delete it yourself, or forget its folder with "
            "“underpaint models remove-folder”"
        )
    if entry.folder.is_relative_to(default_roots()[0]):
        raise CommandError(f"{name} comes with Underpaint and cannot be removed")
    raise CommandError(f"{name} is the folder {entry.folder}. Delete it yourself to be rid of it")


def _remove_what_is_not_there(arguments: argparse.Namespace, offer: Offer) -> None:
    name = offer.model.id
    if offer.own:
        _sure(arguments.yes, f"Take {name} out of the list?")
        adding.forget(name)
        print(f"{name} is out of the list. Nothing of it was on this machine.")
        return
    print(f"{name} is not on this machine, so there is nothing to delete.")


def _remove_files(offer: Offer, store: Store) -> None:
    name = offer.model.id
    removed = remove(offer, store, _offers().values())
    if offer.own:
        adding.forget(name)
    print(f"{in_gb(removed.freed)} are free again.")
    if removed.kept_for:
        print(f"What {', '.join(removed.kept_for)} needs as well was kept.")
    entry = find_models(default_roots()).get(name)
    if entry is not None and entry.model.state == "ready":
        print(f"{name} can still be used, from {entry.folder}.")


def _sure(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("nobody is there to be asked; say --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was changed")


# verify


def _verify(arguments: argparse.Namespace) -> int:
    store, how = _store(), _settings(arguments)
    here = [offer for offer in _offers().values() if any(store.likeliest(source) for source in offer.sources)]
    chosen = [_offer(name) for name in arguments.models] or here
    good = True
    for offer in chosen:
        good &= _verify_one(offer, store, how, arguments.repair)
    if not chosen:
        print("No model was fetched from the hub.")
    return 0 if good else 1


def _verify_one(offer: Offer, store: Store, how: Settings, repair: bool) -> bool:
    name = offer.model.id
    if offer not in [offer for source in offer.sources if store.likeliest(source)]:
        print(f"{name}: nothing of it came from the hub, so there are no hashes to compare with.")
        return offer.local is not None
    findings = verify(offer, store, lambda path, size: None, Event())
    for finding in findings:
        print(f"{name}: {finding.file.path} is {finding.problem}")
    bad = [finding for finding in findings if finding.problem != "unknown"]
    if not bad:
        print(f"{name}: all is well.")
    elif repair:
        discard(bad, store)
        _fetch(offer, how)
        return True
    else:
        print(f"“underpaint models verify --repair {name}” fetches it again.")
    return not bad


# What all of them ask


def _store() -> Store:
    return Store(cache_folder())


def _settings(arguments: argparse.Namespace) -> Settings:
    try:
        return settings(arguments.endpoint, arguments.hub_token, arguments.offline)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _offers() -> dict[str, Offer]:
    try:
        return offers()
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from None


def _offer(name: str) -> Offer:
    offer = _offers().get(name)
    if offer is None:
        raise CommandError(f"{_entry(name).model.id} lies in a folder of models, and comes from nowhere else")
    return offer


def _entry(name: str) -> Entry:
    entries = find_models(default_roots())
    if name not in entries:
        close = difflib.get_close_matches(name.lower(), entries, 1)
        hint = f"did you mean {close[0]}?" if close else "“underpaint models” lists them"
        raise CommandError(f"there is no model called {name}; {hint}")
    return entries[name]
