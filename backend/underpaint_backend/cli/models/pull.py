"""`underpaint models pull`: what is absent is fetched."""

from __future__ import annotations

import argparse
import sys
from threading import Event

from ...models.catalog import default_roots, locate
from ...models.download import Download
from ...models.exceptions import ModelError
from ...models.hub import Settings
from ...models.offers import Offer
from .. import CommandError, own_daemon
from .lookup import entry_called, known_offers, settings_of, store_of_the_hub
from .progress import Screen


def run(arguments: argparse.Namespace) -> int:
    """Fetch models, one after another. Raises `ModelError` at the first that cannot be fetched."""
    how = settings_of(arguments)
    wanted = [offer for offer in map(_to_fetch, arguments.models) if offer is not None]
    for offer in wanted:
        fetch(offer, how, arguments.update)
    own_daemon.models_there()
    return 0


def _to_fetch(name: str) -> Offer | None:
    """The offer of this name; None if the model lies in a folder of this machine, ready."""
    offer = known_offers().get(name)
    entry = entry_called(name) if offer is None else None
    if entry is None:
        return offer
    if entry.model.state != "ready":
        raise CommandError(f"{name} lies in {entry.checkpoint or entry.folder}, and {entry.model.detail}")
    print(f"{name} is here already.")
    return None


def fetch(offer: Offer, how: Settings, update: bool = False) -> None:
    """Fetch a model that is not ready; one that is, too, if there may be an `update`. Raises `ModelError`."""
    name, store = offer.model.id, store_of_the_hub()
    if not update and locate(offer, store, default_roots()).model.state == "ready":
        print(f"{name} is here already.")
        return
    screen = Screen()
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
