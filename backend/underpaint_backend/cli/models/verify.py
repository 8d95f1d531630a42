"""`underpaint models verify`: each file is compared with its hash, and fetched again if it is not well."""

from __future__ import annotations

import argparse
from threading import Event

from ...models.hub import Settings
from ...models.offers import Offer
from ...models.store import Store
from ...models.verify import discard, verify
from .lookup import known_offers, offer_called, settings_of, store_of_the_hub
from .pull import fetch


def run(arguments: argparse.Namespace) -> int:
    """Compare models with their hashes; the exit code is 1 if one is damaged and was not mended."""
    store, how = store_of_the_hub(), settings_of(arguments)
    here = [offer for offer in known_offers().values() if any(store.likeliest(source) for source in offer.sources)]
    chosen = [offer_called(name) for name in arguments.models] or here
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
        fetch(offer, how)
        return True
    else:
        print(f"“underpaint models verify --repair {name}” fetches it again.")
    return not bad
