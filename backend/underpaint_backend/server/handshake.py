"""Who may connect: the checks on the HTTP request that opens a websocket.

The answer to a refused request carries the error as JSON, so that a client can show its sentence.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.messages import SUBPROTOCOL
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True)
class Refusal:
    """Why a request is not let in."""

    status: HTTPStatus
    error: ErrorInfo


@dataclass(frozen=True)
class Gate:
    """The conditions under which a request is let in.

    `token` is the daemon's secret; `hosts` are names, beside those of loopback, under which the daemon may be
    addressed; `origins` are web origins that may connect, usually none.
    """

    token: str
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def examine(self, headers: Headers) -> Refusal | None:
        """The reason to refuse a request with these headers; None if it may come in.

        A browser always sends `Origin` and no other client does, so its mere presence tells a web page that someone
        lured the artist to. `Host` ends DNS rebinding. The token is compared in constant time.
        """
        origins = headers.get_all("Origin")
        if any(origin not in self.origins for origin in origins):
            return Refusal(HTTPStatus.FORBIDDEN, describe("forbidden_origin"))
        hosts = headers.get_all("Host")
        if len(hosts) != 1 or _host_name(hosts[0]) not in LOOPBACK_NAMES | self.hosts:
            return Refusal(HTTPStatus.FORBIDDEN, describe("forbidden_host"))
        given = headers.get_all("Authorization")
        expected = f"Bearer {self.token}"
        if len(given) != 1 or not hmac.compare_digest(_octets(given[0]), _octets(expected)):
            return Refusal(HTTPStatus.UNAUTHORIZED, describe("unauthorized"))
        if SUBPROTOCOL not in _offered(headers.get_all("Sec-WebSocket-Protocol")):
            return Refusal(HTTPStatus.BAD_REQUEST, describe("wrong_version"))
        return None

    def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """The hook of `websockets.serve`: an HTTP answer that refuses, or None to go on."""
        refusal = self.examine(request.headers)
        if refusal is None:
            return None
        response = connection.respond(refusal.status, json.dumps(refusal.error.to_wire(), ensure_ascii=False))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json; charset=utf-8"
        if refusal.status is HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response


def _octets(header: str) -> bytes:
    """A header as it travelled; octets beyond ASCII, which no token has, may be anything."""
    return header.encode("utf-8", "surrogateescape")


def _host_name(host: str) -> str:
    """The name in a `Host` header, without the port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _offered(headers: Sequence[str]) -> set[str]:
    return {name.strip() for header in headers for name in header.split(",")}
