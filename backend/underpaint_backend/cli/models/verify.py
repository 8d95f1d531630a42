"""`underpaint models verify`: each file is compared with its hash, and fetched again if it is not well."""

from __future__ import annotations

import argparse
from threading import Event

from ...models.catalog import Entry
from ...models.hub import Settings
from ...models.layout import damage_in
from ...models.offers import Offer
from ...models.store import Store
from ...models.verify import discard, verify
from .lookup import entry_called, known_offers, settings_of, store_of_the_hub
from .pull import fetch


def run(arguments: argparse.Namespace) -> int:
    """Compare models with their hashes; the exit code is 1 if one is damaged and was not mended, or is not here."""
    store, how, offers = store_of_the_hub(), settings_of(arguments), known_offers()
    here = [name for name, offer in offers.items() if offer.local is not None or _is_fetched(offer, store)]
    good = True
    for name in arguments.models or here:
        offer = offers.get(name)
        if offer is not None and _is_fetched(offer, store):
            good &= _verify_one(offer, store, how, arguments.repair)
        else:
            good &= _look_at(entry_called(name))
    if not arguments.models and not here:
        print("No model was fetched from the hub.")
    return 0 if good else 1


def _is_fetched(offer: Offer, store: Store) -> bool:
    """Whether something of it came from the hub."""
    return any(store.likeliest(source) for source in offer.sources)


def _look_at(entry: Entry) -> bool:
    """Say what headers tell of a model for which there are no hashes; whether it is here and nothing is wrong."""
    name, state, detail = entry.model.id, entry.model.state, entry.model.detail
    if state == "absent" and entry.folder.is_relative_to(store_of_the_hub().root):
        print(f"{name}: it is not on this machine. “underpaint models pull {name}” fetches it.")
        return False
    if state != "ready":
        print(f"{name}: {detail}.")
        return False
    damage = damage_in(entry.folder) if entry.checkpoint is None else ""  # a single file is looked at for each list
    if damage:
        print(f"{name}: its {damage}.")
        return False
    print(f"{name}: it did not come from the hub, so there are no hashes. Its files' headers are well.")
    return True


def _verify_one(offer: Offer, store: Store, how: Settings, repair: bool) -> bool:
    name = offer.model.id
    findings = verify(offer, store, lambda path, size: None, Event())
    for finding in findings:
        print(f"{name}: {finding.file.path} is {finding.problem}")
    bad = [finding for finding in findings if finding.problem != "unknown"]
    if not bad:
        print(f"{name}: all is well.")
    elif repair:
        discard(bad, store)
        fetch(offer, how)
        return True
    else:
        print(f"“underpaint models verify --repair {name}” fetches it again.")
    return not bad
