"""From an address to an open websocket, or to the reason why there is none."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import uniform
from urllib.parse import urlsplit

from underpaint_protocol.errors import ErrorInfo, describe, refusal_in
from underpaint_protocol.messages import MAX_FRAME, SUBPROTOCOL
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

FIRST_DELAY = 0.25
LAST_DELAY = 15.0
"""Seconds between two attempts, at most."""

CLOSING_SECONDS = 2.0
"""How long a daemon may take to say goodbye."""


class Refused(Exception):
    """The daemon cannot be reached, does not let this client in, or did not paint; `error` says it in words."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(f"{error.message} {error.hint}")
        self.error = error


@dataclass(frozen=True)
class Address:
    """A daemon, and what opens its door. `tls` is for `wss://`; None trusts whom this machine trusts."""

    url: str
    token: str = field(repr=False)
    tls: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext | None:
        """Whom to trust; None where nothing is encrypted."""
        encrypted = self.url.lower().startswith("wss:")
        return self.tls or (ssl.create_default_context() if encrypted else None)


def is_local(url: str) -> bool:
    """Whether the daemon at `url` runs on this machine, as far as its name says."""
    try:
        return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    except ValueError:
        return False


async def dial(address: Address) -> ClientConnection:
    """Open a websocket to the daemon.

    Raises `Refused` if it cannot be reached or refuses; `error.retryable` says whether it may do so later.
    """
    try:
        return await open_socket(
            address.url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {address.token}"},
            compression=None,
            max_size=MAX_FRAME,
            close_timeout=CLOSING_SECONDS,
            proxy=None,
            ssl=address.context(),
        )
    except InvalidStatus as refusal:
        raise Refused(refusal_in(refusal.response.body) or describe("unreachable", detail=address.url)) from None
    except ssl.SSLCertVerificationError:
        raise Refused(describe("unknown_certificate", detail=urlsplit(address.url).hostname)) from None
    except (OSError, ValueError, TimeoutError, InvalidHandshake, InvalidURI):
        raise Refused(describe("unreachable", detail=address.url)) from None


def pauses() -> Iterator[float]:
    """Seconds to wait before each attempt: they double, and no two clients of a daemon that comes back wait alike."""
    delay = FIRST_DELAY
    while True:
        yield delay * uniform(0.5, 1.0)
        delay = min(LAST_DELAY, 2 * delay)
