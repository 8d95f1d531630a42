"""Who may connect to a real daemon, tried with real HTTP requests."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest
from underpaint_backend.launch import Launched
from underpaint_backend.server.token import load_token
from underpaint_protocol.messages import SUBPROTOCOL
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol


async def refusal(daemon: Launched, **changes: str | None) -> tuple[int, str]:
    """The HTTP status and the error code with which the daemon refuses a handshake; (101, "") if it does not."""
    headers = {"Authorization": f"Bearer {daemon.token}", "Host": None, "Origin": None, **changes}
    subprotocol = headers.pop("subprotocol", SUBPROTOCOL)
    sent = {name: value for name, value in headers.items() if value is not None}
    try:
        async with connect(
            daemon.url,
            subprotocols=[Subprotocol(subprotocol)] if subprotocol else None,
            additional_headers=sent,
            compression=None,
            proxy=None,
        ):
            return 101, ""
    except InvalidStatus as error:
        return error.response.status_code, json.loads(error.response.body or b"")["code"]


async def test_the_right_token_is_let_in(daemon: Launched) -> None:
    """A client that has the token, speaks the language and sends no Origin may connect."""
    assert await refusal(daemon) == (101, "")


@pytest.mark.parametrize("token", [None, "Bearer ", "Bearer " + "0" * 64, "Basic eDp5", "Bearer ü"])
async def test_a_wrong_token_is_refused_with_a_sentence(daemon: Launched, token: str | None) -> None:
    """Without the token nobody gets in, on loopback neither."""
    assert await refusal(daemon, Authorization=token) == (401, "unauthorized")


async def test_a_token_cut_short_is_refused(daemon: Launched) -> None:
    """A prefix of the token is no token."""
    assert await refusal(daemon, Authorization=f"Bearer {daemon.token[:-1]}") == (401, "unauthorized")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "file://"])
async def test_any_origin_is_refused(daemon: Launched, origin: str) -> None:
    """A web page cannot connect, wherever it comes from."""
    assert await refusal(daemon, Origin=origin) == (403, "forbidden_origin")


def test_a_host_that_was_not_allowed_is_refused(daemon: Launched) -> None:
    """A name that resolves here by DNS rebinding is not one of the daemon's."""
    assert raw_status(daemon, "Host: rebound.example") == 403
    assert raw_status(daemon, "Host: 127.0.0.1.evil.example:80") == 403
    assert raw_status(daemon, "Host: localhost:1") == 401


def test_a_token_of_stray_octets_is_refused_like_any_other(daemon: Launched) -> None:
    """Octets that are no text do not upset the daemon."""
    assert raw_status(daemon, "Host: localhost\r\nAuthorization: Bearer \xff\xfe") == 401


def test_two_hosts_are_refused(daemon: Launched) -> None:
    """A request that names two hosts is not let in by either."""
    assert raw_status(daemon, "Host: 127.0.0.1\r\nHost: evil.example") in (400, 403)


def raw_status(daemon: Launched, headers: str) -> int:
    """The HTTP status of a handshake with these headers and without a token."""
    port = int(daemon.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            (
                f"GET / HTTP/1.1\r\n{headers}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode("latin-1")
        )
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("subprotocol", ["underpaint.v2", "underpaint.v10", "chat", ""])
async def test_another_version_is_refused_with_a_sentence(daemon: Launched, subprotocol: str) -> None:
    """A client that does not offer this version of the language is told so."""
    assert await refusal(daemon, subprotocol=subprotocol) == (400, "wrong_version")


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """The first start makes 256 random bits in a file with mode 0600; later starts read them."""
    path = tmp_path / "folder" / "token"
    token = load_token(path)
    assert len(bytes.fromhex(token)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_token(path) == token


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A token file that lost its protection stops the daemon with the command that mends it."""
    path = tmp_path / "token"
    load_token(path)
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        load_token(path)


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    """An empty file is never taken for a token."""
    path = tmp_path / "token"
    path.touch(mode=0o600)
    with pytest.raises(ValueError, match="no token"):
        load_token(path)


def test_the_token_is_never_logged(daemon: Launched) -> None:
    """Neither the token nor the header that carries it reaches the log."""
    assert daemon.token not in daemon.log.read_text()
