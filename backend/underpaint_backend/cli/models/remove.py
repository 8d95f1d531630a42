"""`underpaint models remove`: a model's files are deleted, or its entry alone where the files are its owner's."""

from __future__ import annotations

import argparse
import sys

from ...models.adding import forget
from ...models.catalog import default_roots, find_models
from ...models.meter import in_gb
from ...models.offers import Offer
from ...models.removal import remove
from ...models.store import Store
from .. import CommandError, own_daemon
from .lookup import all_offers, entry_called, store_of_the_hub


def run(arguments: argparse.Namespace) -> int:
    """Delete what of a model no other needs, once the person at the keyboard is sure."""
    offer, store = _removable(arguments.model), store_of_the_hub()
    name = offer.model.id
    if offer.local is not None:
        what = "folder" if offer.folder is not None else "file"
        _sure(arguments.yes, f"Take {name} out of the list? Its {what} {offer.local} stays.")
        forget(name)
        print(f"{name} is out of the list. Its {what} {offer.local} was not touched.")
    elif not any(store.repository(source.repository).exists() for source in offer.sources):
        _remove_what_is_not_there(arguments, offer)
    else:
        _sure(arguments.yes, f"Delete the files of {name}?")
        _remove_files(offer, store)
    own_daemon.models_there()
    return 0


def _removable(name: str) -> Offer:
    offer = all_offers().get(name)
    entry = entry_called(name) if offer is None else None
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
        forget(name)
        print(f"{name} is out of the list. Nothing of it was on this machine.")
        return
    print(f"{name} is not on this machine, so there is nothing to delete.")


def _remove_files(offer: Offer, store: Store) -> None:
    name = offer.model.id
    removed = remove(offer, store, all_offers().values())
    if offer.own:
        forget(name)
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
