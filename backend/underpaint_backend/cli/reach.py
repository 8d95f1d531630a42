"""How a command reaches the daemon: which address, with which token, trusting whose certificate."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from underpaint_protocol.locations import DEFAULT_PORT, launch_file, token_file

from ..client import Refused, connect
from . import CommandError

__all__ = ["Reach", "Refused", "add_arguments", "connect", "in_words", "own_address", "own_token", "reach"]

VARIABLE = "UNDERPAINT_TOKEN"
PATIENCE = 10.0
"""Seconds that a server gets to show its certificate."""


@dataclass(frozen=True)
class Reach:
    """What `connect` needs."""

    url: str
    token: str = field(repr=False)
    tls: ssl.SSLContext | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options about the daemon."""
    parser.add_argument("--url", default=own_address(), help="the daemon (default: %(default)s)")
    parser.add_argument("--token", help=f"for a daemon of somebody else's; better in the variable {VARIABLE}")
    parser.add_argument(
        "--trust",
        type=_fingerprint,
        metavar="FINGERPRINT",
        help="of the daemon's own certificate, as its log shows it, in quotes",
    )


def in_words(refused: Refused) -> str:
    """What a terminal says of it: where there is no daemon, a command starts one."""
    start = " On this machine, “underpaint serve” starts one." if refused.error.code == "unreachable" else ""
    return f"{refused}{start}"


def _fingerprint(words: str) -> str:
    """64 small hexadecimal digits, however they are grouped. Raises `ArgumentTypeError`."""
    digits = re.sub(r"[\s:]", "", words).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise argparse.ArgumentTypeError(
            "must be the 64 digits and letters from the daemon's log, in quotes if there are spaces between them; "
            f"it was {words}"
        )
    return digits


def reach(arguments: argparse.Namespace) -> Reach:
    """The daemon that was asked for. Raises `CommandError` if something is missing."""
    if not (arguments.url.startswith(("ws://", "wss://")) and _host(arguments.url)):
        raise CommandError(f"{arguments.url} is no address; one looks like ws://127.0.0.1:{DEFAULT_PORT}")
    tls = None if arguments.trust is None else _trusting(arguments.url, arguments.trust)
    return Reach(arguments.url, _token(arguments), tls)


def own_address() -> str:
    """Where this user's daemon listened last, as it wrote down itself; else where it listens if nobody says."""
    try:
        words = json.loads(launch_file().read_text(encoding="utf-8"))
        host, _, port = words[words.index("--listen") + 1].rpartition(":")
    except (OSError, ValueError, IndexError, AttributeError):
        return f"ws://127.0.0.1:{DEFAULT_PORT}"
    anywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
    return f"{'wss' if '--tls-cert' in words else 'ws'}://{anywhere.get(host, host)}:{port}"


def own_token() -> str:
    """What this user's daemon lets its owner in with.

    Raises `FileNotFoundError` if it never ran, and `OSError` or `ValueError` if the file cannot be read.
    """
    return token_file().read_text(encoding="ascii").strip()


def _token(arguments: argparse.Namespace) -> str:
    given = arguments.token or os.environ.get(VARIABLE)
    if given:
        return str(given).strip()
    is_own = arguments.url == own_address()
    wanting = CommandError(f"{arguments.url} wants a token of its own: give it with --token, or in {VARIABLE}")
    if not is_own and _host(arguments.url) not in ("127.0.0.1", "localhost", "::1"):
        raise wanting
    try:
        return own_token()
    except FileNotFoundError:
        if not is_own:
            raise wanting from None
        raise CommandError("the daemon never ran for this user. Start it with “underpaint serve”") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{token_file()} cannot be read: {error}") from None


def _trusting(url: str, wanted: str) -> ssl.SSLContext:
    """Trust the certificate with this SHA-256 fingerprint and no other. The token goes to nobody who lacks its key."""
    try:
        address = (_host(url), urlsplit(url).port or 443)
        shown = ssl.get_server_certificate(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise CommandError(f"{url} shows no certificate: {error}") from None
    found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest()
    if found != wanted:
        raise CommandError(f"{url} shows another certificate, with the fingerprint {found}. Nothing was sent")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is known by more than its name
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=shown)
    return context


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
