"""What all of `underpaint models` ask: the cache, the hub, the offers, and a model by its name."""

from __future__ import annotations

import argparse
import difflib

from ...models.catalog import Entry, default_roots, find_models
from ...models.hub import Settings, settings
from ...models.offers import Offer, offers, sound_offers
from ...models.store import Store, cache_folder
from .. import CommandError


def store_of_the_hub() -> Store:
    """The cache of the hub, where other tools have it, too."""
    return Store(cache_folder())


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Which hub is asked, and as whom. Raises `CommandError`."""
    try:
        return settings(arguments.endpoint, arguments.hub_token, arguments.offline)
    except ValueError as error:
        raise CommandError(str(error)) from None


def known_offers() -> dict[str, Offer]:
    """All that can be fetched or was added, by id, but for those of one's own that are wrong: the log says so."""
    return sound_offers()[0]


def all_offers() -> dict[str, Offer]:
    """The same for whoever changes the list. Raises `CommandError` if one is wrong: what it needs is not known."""
    try:
        return offers()
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from None


def entry_called(name: str) -> Entry:
    """Where a model is. Raises `CommandError`, with the name that was perhaps meant, if there is none."""
    entries = find_models(default_roots())
    if name not in entries:
        close = difflib.get_close_matches(name.lower(), entries, 1)
        hint = f"did you mean {close[0]}?" if close else "“underpaint models” lists them"
        raise CommandError(f"there is no model called {name}; {hint}")
    return entries[name]
