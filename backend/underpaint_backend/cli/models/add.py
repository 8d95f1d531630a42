"""`underpaint models add`: a repository, a folder or a file gets into the list."""

from __future__ import annotations

import argparse
from pathlib import Path
from threading import Event

from underpaint_protocol.exceptions import InvalidField

from ...models import adding
from ...models.catalog import default_roots, find_models
from ...models.denials import denial_of
from ...models.folders import file_table
from ...models.hub import Denied, Hub, HubError, NotReached, NotThere
from ...models.layout import parts_of, read_index, read_object, unlisted_in
from ...models.line import Line
from ...models.meter import in_gb
from ...models.offers import Source, check_id
from ...models.selection import lacking, needed
from .. import CommandError, own_daemon
from .lookup import all_offers, settings_of


def run(arguments: argparse.Namespace) -> int:
    """Add a model to the list. Raises `CommandError` if it cannot be one."""
    name = arguments.model
    try:
        where = adding.place_of(arguments.where)
        _refuse_what_does_not_apply(arguments, where)
        check_id(name)
        known = all_offers().get(name)
        if (known is None or not known.own) and name in find_models(default_roots()):
            raise CommandError(f"there is a model called {name} already; choose another name")
        if isinstance(where, str):
            table = _table(arguments, where)
        elif where.is_file():
            table = file_table(name, where, arguments.configuration)
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
    how = settings_of(arguments)
    if how.offline:
        raise ValueError("what a repository holds can only be asked of the hub, and working offline was asked for")
    variant = "fp16" if arguments.variant is None else arguments.variant
    source = Source(where, ("*", "*/*"), "main" if arguments.revision is None else arguments.revision, variant)
    hub = Hub(how, Event(), Line())
    try:
        commit, gated = hub.told_of(source.repository, source.revision)
        tree = hub.tree(source.repository, commit)
        if "model_index.json" not in tree.files:
            raise ValueError(f"{source.repository} has no model_index.json, so it is no model in diffusers' layout")

        def config(part: str) -> dict[str, object] | None:
            path = f"{part}/config.json"
            return read_object(hub.text(source.repository, commit, path), path) if path in tree.files else None

        index = read_index(hub.text(source.repository, commit, "model_index.json"))
        described = adding.told_by_parts(adding.describe_pipeline(index, arguments.family), config)
        unlisted = unlisted_in(parts_of(index), described["family"])
        if unlisted:
            raise ValueError(f"{source.repository} {unlisted}")
    except HubError as error:
        if isinstance(error, NotThere) or (isinstance(error, Denied) and error.code == "RepoNotFound"):
            raise ValueError(f"there is no folder {where} here, and no such repository at {how.endpoint}") from None
        if isinstance(error, Denied):
            raise ValueError(_denied(error, where, how.token)) from None
        hint = ". A mirror is named with --endpoint or HF_ENDPOINT" if isinstance(error, NotReached) else ""
        raise ValueError(
            f"there is no folder {where} here, and {how.endpoint} says nothing of it: {error}{hint}"
        ) from None
    wanted = Source(source.repository, tuple(described["files"]), source.revision, source.variant)
    paths = needed(wanted, tree.files)
    gaps = lacking(wanted, paths)
    if gaps:
        raise ValueError(f"{wanted.repository} has no {gaps[0]} of a kind that can be used")
    size = sum(tree.files[path].size for path in paths)
    named = {"id": arguments.model, "name": where.partition("/")[2]}
    return {
        **named,
        **described,
        "download": size,
        "repository": wanted.repository,
        "revision": wanted.revision,
        "variant": wanted.variant,
        **({"gated": True} if gated else {}),
    }


def _denied(denied: Denied, repository: str, token: str | None) -> str:
    denial = denial_of(denied, repository, token)
    if not denial.page:
        return f"there is no folder {repository} here, and {denial.reason}"
    return (
        f"{repository} is given only to those who accepted its licence: {denial.reason}. Open {denial.page}, accept "
        "the licence there, make a token on the hub's settings page, and give it with --hub-token, or set HF_TOKEN"
    )
