"""Who may connect: the checks on the HTTP request that opens a websocket.

The answer to a refused request carries the error as JSON, so that a client can show its sentence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.messages import SUBPROTOCOL
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from .attempts import Attempts
from .owners import Owner
from .tokens import Tokens

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
SCHEME = "Bearer "


@dataclass(frozen=True)
class Refusal:
    """Why a request is not let in, and for how many seconds it is useless to come again.

    One that is `held` is told late or not at all, because too many were told before.
    """

    status: HTTPStatus
    error: ErrorInfo
    retry_after: int | None = None
    held: bool = False


@dataclass(frozen=True)
class Gate:
    """The conditions under which a request is let in.

    `tokens` are those that open it; `hosts` are names, beside those of loopback, under which the daemon may be
    addressed; `origins` are web origins that may connect, usually none; `attempts` counts who is refused.
    """

    tokens: Tokens
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    attempts: Attempts = field(default_factory=Attempts)

    def examine(self, headers: Headers, address: str) -> Owner | Refusal:
        """Who comes in with these headers from the IP address `address`, or the reason to refuse.

        A browser always sends `Origin` and no other client does, so its mere presence tells a web page that someone
        lured the artist to. `Host` ends DNS rebinding. Tokens are compared in constant time.
        """
        origins = headers.get_all("Origin")
        if any(origin not in self.origins for origin in origins):
            return self._refusal(HTTPStatus.FORBIDDEN, "forbidden_origin", address)
        hosts = headers.get_all("Host")
        if len(hosts) != 1 or _host_name(hosts[0]) not in LOOPBACK_NAMES | self.hosts:
            return self._refusal(HTTPStatus.FORBIDDEN, "forbidden_host", address)
        owner = self._owner(headers.get_all("Authorization"))
        if owner is None:
            return self._refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", address)
        if SUBPROTOCOL not in _offered(headers.get_all("Sec-WebSocket-Protocol")):
            return self._refusal(HTTPStatus.BAD_REQUEST, "wrong_version", address)
        return owner

    async def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """The hook of `websockets.serve`: an HTTP answer that refuses, or None to go on.

        In the latter case the attribute `owner` of the connection is set; `owner_of` reads it.
        """
        examined = self.examine(request.headers, _address(connection))
        if isinstance(examined, Refusal):
            if examined.held and not await self.attempts.hold():
                connection.transport.abort()  # and nothing is sent any more
            return refuse_with(connection, examined)
        connection.owner = examined  # type: ignore[attr-defined]
        return None

    def _owner(self, given: Sequence[str]) -> Owner | None:
        if len(given) != 1 or not given[0].startswith(SCHEME):
            return None
        return self.tokens.find(given[0][len(SCHEME) :])

    def _refusal(self, status: HTTPStatus, code: str, address: str) -> Refusal:
        """What to answer to `address`, which is counted."""
        seconds = self.attempts.failed(address, code)
        if seconds and code == "unauthorized":
            error = describe("too_many_attempts", detail=seconds)
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, error, seconds, held=True)
        return Refusal(status, describe(code), held=seconds > 0)


def owner_of(connection: ServerConnection) -> Owner:
    """Whose connection this is, once the gate let it in."""
    owner: Owner = connection.owner  # type: ignore[attr-defined]
    return owner


def refuse_with(connection: ServerConnection, refusal: Refusal) -> Response:
    """The HTTP answer that refuses a handshake."""
    response = connection.respond(refusal.status, json.dumps(refusal.error.to_wire(), ensure_ascii=False))
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json; charset=utf-8"
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


def _address(connection: ServerConnection) -> str:
    """From where a connection comes; empty if it is gone already."""
    remote = connection.remote_address
    return str(remote[0]) if remote else ""


def _host_name(host: str) -> str:
    """The name in a `Host` header, without the port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _offered(headers: Sequence[str]) -> set[str]:
    return {name.strip() for header in headers for name in header.split(",")}
