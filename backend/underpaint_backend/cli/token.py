"""`underpaint token`: who else may use this daemon, and how much of it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from underpaint_protocol.locations import data_folder, token_file

from ..server.access.guests import NAME, Guest, changing, read_guests
from ..server.access.owners import OWNER, Allowance
from ..server.access.tokens import digest_of, guests_beside, make_token
from . import CommandError

WITHOUT = Allowance()

GIVEN = """\
This is the token of “{name}”. It is shown this once and kept nowhere:

    {token}

Hand it over by a way that nobody else can read. In Krita it is entered where the Underpaint docker's “…” button asks
for the server. A running daemon accepts it at once; “underpaint token revoke {name}” ends that.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `token add`, `token list` and `token revoke`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="make a token", description="Make a token and print it once.")
    add.add_argument("name", type=_name, metavar="NAME", help="whose it is: small letters, digits, - and _")
    _add_bound(add, "connections", WITHOUT.connections, "connections that may be open at once")
    _add_bound(add, "jobs", WITHOUT.jobs, "jobs that may wait or run")
    _add_bound(add, "megapixels", WITHOUT.pixels >> 20, "of one request: area times pictures, in 1024 × 1024 px")
    _add_bound(add, "upload-mib", WITHOUT.tile_bytes >> 20, "MiB of pixels that may wait with the jobs")
    _add_bound(add, "work-per-day", WITHOUT.work_per_day, "megapixels times pictures times steps, in a day")
    actions.add_parser("list", help="list the tokens' names and allowances")
    revoke = actions.add_parser("revoke", help="let nobody in with this token any more")
    revoke.add_argument("name", metavar="NAME")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked."""
    actions: dict[str, Callable[[argparse.Namespace], None]] = {"add": _add, "list": _list, "revoke": _revoke}
    actions[arguments.action](arguments)
    return 0


def _add_bound(parser: argparse.ArgumentParser, name: str, default: int | None, what: str) -> None:
    without = "no bound" if default is None else default
    parser.add_argument(f"--{name}", type=_bound, default=default, metavar="N", help=f"{what} (default: {without})")


def _name(word: str) -> str:
    if not NAME.fullmatch(word):
        raise argparse.ArgumentTypeError(
            f"must be up to 32 small letters, digits, - and _, the first a letter or digit; it was {word}"
        )
    if word == OWNER:
        raise argparse.ArgumentTypeError(f"must not be “{OWNER}”, which is you")
    return word


def _bound(word: str) -> int:
    if not (word.isascii() and word.isdigit() and 1 <= int(word) <= 1 << 30):
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {1 << 30}; it was {word}")
    return int(word)


def _add(arguments: argparse.Namespace) -> None:
    token = make_token()
    with _changing() as guests:
        if arguments.name in guests:
            raise CommandError(
                f"there is a token for {arguments.name} already. Revoke it first, or choose another name"
            )
        guests[arguments.name] = Guest(digest_of(token), _allowance(arguments))
    print(GIVEN.format(name=arguments.name, token=token), end="")


def _allowance(arguments: argparse.Namespace) -> Allowance:
    return Allowance(
        connections=arguments.connections,
        jobs=arguments.jobs,
        pixels=arguments.megapixels << 20,
        tile_bytes=arguments.upload_mib << 20,
        work_per_day=arguments.work_per_day,
    )


def _list(arguments: argparse.Namespace) -> None:
    try:
        guests = read_guests(_file())
    except ValueError as error:
        raise CommandError(str(error)) from None
    print(f"{OWNER:32} the token in {data_folder()}")
    for name, guest in sorted(guests.items()):
        print(f"{name:32} {_in_words(guest.allowance)}")


def _in_words(allowance: Allowance) -> str:
    work = "" if allowance.work_per_day is None else f", {allowance.work_per_day} megapixel steps a day"
    return (
        f"{allowance.connections} connections, {allowance.jobs} jobs, {allowance.pixels >> 20} megapixels, "
        f"{allowance.tile_bytes >> 20} MiB{work}"
    )


def _revoke(arguments: argparse.Namespace) -> None:
    if arguments.name == OWNER:
        raise CommandError(f"the owner's token is a file: delete {token_file()}, and the next start makes a new one")
    with _changing() as guests:
        if arguments.name not in guests:
            raise CommandError(f"there is no token for {arguments.name}")
        del guests[arguments.name]
    print(f"Nobody gets in with the token of “{arguments.name}” any more.")


@contextlib.contextmanager
def _changing() -> Iterator[dict[str, Guest]]:
    try:
        with changing(_file()) as guests:
            yield guests
    except FileExistsError as error:
        raise CommandError(
            f"the tokens are being changed by somebody else. If not, that was interrupted: delete {error.filename}"
        ) from None
    except ValueError as error:
        raise CommandError(str(error)) from None


def _file() -> Path:
    return guests_beside(token_file())
