"""Who may connect to a real daemon, tried with real HTTP requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from underpaint_backend.launch import Launched
from underpaint_backend.server.access import attempts
from underpaint_backend.server.access.attempts import ATTEMPTS, MAX_HELD
from underpaint_backend.server.access.guests import Guest, changing
from underpaint_backend.server.access.handshake import Gate, owner_of
from underpaint_backend.server.access.owners import Allowance, Owner
from underpaint_backend.server.access.tokens import Tokens, digest_of, guests_beside, load_token, make_token
from underpaint_protocol.messages import SUBPROTOCOL
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


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


def test_the_token_is_never_logged(daemon: Launched) -> None:
    """Neither the token nor the header that carries it reaches the log."""
    assert daemon.token not in daemon.log.read_text()


@contextlib.asynccontextmanager
async def gate(path: Path, **conditions: frozenset[str]) -> AsyncIterator[str]:
    """The address of a server that has a gate before it and tells everyone who they are."""

    async def tell(connection: ServerConnection) -> None:
        owner = owner_of(connection)
        await connection.send(f"{owner.name} {owner.allowance.jobs}")

    opened = Gate(Tokens(path), **conditions)
    subprotocols = [Subprotocol(SUBPROTOCOL)]
    async with serve(tell, "127.0.0.1", 0, process_request=opened.process_request, subprotocols=subprotocols) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def name_of(url: str, token: str, **headers: str) -> str:
    """What the gate's server tells to whoever has this token. Raises `InvalidStatus` if the gate stays closed."""
    subprotocols = [Subprotocol(SUBPROTOCOL)]
    headers = {"Authorization": f"Bearer {token}", **headers}
    async with connect(url, subprotocols=subprotocols, additional_headers=headers, proxy=None) as connection:
        return str(await connection.recv())


async def test_a_connection_has_an_owner(tmp_path: Path) -> None:
    """The daemon's own user by the token in the file, a guest by the one that was given to them."""
    path, token = tmp_path / "token", make_token()
    with changing(guests_beside(path)) as guests:
        guests["anna"] = Guest(digest_of(token), Allowance(jobs=3))
    async with gate(path) as url:
        assert await name_of(url, load_token(path)) == "owner 64"
        assert await name_of(url, token) == "anna 3"


async def answer_to(url: str, **headers: str) -> int:
    """The HTTP status that a handshake gets; 0 if the connection is closed without an answer."""
    host, _, port = url.removeprefix("ws://").partition(":")
    wanted = {"Host": "localhost", "Sec_WebSocket_Protocol": SUBPROTOCOL, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in wanted.items()]
    reader, writer = await asyncio.open_connection(host, int(port))
    with contextlib.suppress(ConnectionError):
        writer.write("\r\n".join(["GET / HTTP/1.1", *lines, *UPGRADE, "", ""]).encode())
        status = await reader.readline()
        writer.transport.abort()
        return int(status.split()[1]) if status else 0
    return 0


async def test_who_is_refused_too_often_is_told_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, they come to nothing fast; meanwhile a right token is let in at once."""
    monkeypatch.setattr(attempts, "HOLD", 0.8)
    path = tmp_path / "token"
    async with gate(path) as url:
        began = time.monotonic()
        for _ in range(ATTEMPTS):
            assert await answer_to(url) == 401
        assert time.monotonic() - began < 0.8
        late = asyncio.create_task(answer_to(url))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert await name_of(url, load_token(path)) == "owner 64"
        assert time.monotonic() - began < 0.6
        assert not late.done()
        assert await late == 429


async def test_a_flood_of_wrong_tokens_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many refusals are held; the others are dropped, and when those are told there is room for more."""
    monkeypatch.setattr(attempts, "HOLD", 1.0)
    path = tmp_path / "token"
    async with gate(path) as url:
        for _ in range(ATTEMPTS):
            await answer_to(url)
        statuses = await asyncio.gather(*(answer_to(url) for _ in range(MAX_HELD * 3)))
        assert Counter(statuses) == {429: MAX_HELD, 0: MAX_HELD * 2}
        assert await name_of(url, load_token(path)) == "owner 64"
        assert await answer_to(url) == 429


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Sec_WebSocket_Protocol": "v0"}, 400),
    ],
    ids=["origin", "host", "version"],
)
async def test_all_that_is_refused_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], status: int
) -> None:
    """It is always told why; and as for a wrong token, it is told late when there was too much of it."""
    monkeypatch.setattr(attempts, "HOLD", 0.3)
    path = tmp_path / "token"
    async with gate(path) as url:
        headers = {"Authorization": f"Bearer {load_token(path)}", **headers}
        for _ in range(ATTEMPTS):
            assert await answer_to(url, **headers) == status
        began = time.monotonic()
        assert await answer_to(url, **headers) == status
        assert time.monotonic() - began >= 0.3
        assert await answer_to(url) == 401


async def test_wrong_tokens_have_to_wait_and_right_ones_never(tmp_path: Path) -> None:
    """Who comes with too many wrong tokens is told when to come again; behind the same proxy, a right one comes in."""
    path = tmp_path / "token"
    async with gate(path) as url:
        for attempt in range(ATTEMPTS + 1):
            with pytest.raises(InvalidStatus) as refused:
                await name_of(url, make_token())
            late = attempt == ATTEMPTS
            assert refused.value.response.status_code == (429 if late else 401)
        response = refused.value.response
        assert json.loads(response.body or b"")["code"] == "too_many_attempts"
        assert 0 < int(response.headers["Retry-After"]) <= 60
        assert await name_of(url, load_token(path)) == "owner 64"


@pytest.mark.parametrize(
    ("host", "comes_in"),
    [("Box.example", True), ("box.example:443", True), ("[::2]:8", True), ("[::3]", False), ("box", False)],
)
def test_a_host_that_was_allowed_is_let_in(tmp_path: Path, host: str, comes_in: bool) -> None:
    """Under any port, in any case, and no other name."""
    path = tmp_path / "token"
    opened = Gate(Tokens(path), hosts=frozenset({"box.example", "[::2]"}))
    headers = {"Host": host, "Authorization": f"Bearer {load_token(path)}", "Sec-WebSocket-Protocol": SUBPROTOCOL}
    examined = opened.examine(Headers(headers), "127.0.0.1")
    assert (examined == Owner("owner")) is comes_in


async def test_an_origin_that_was_allowed_is_let_in(tmp_path: Path) -> None:
    """Exactly as it was said; one that begins alike is another."""
    path = tmp_path / "token"
    async with gate(path, origins=frozenset({"https://box.example"})) as url:
        token = load_token(path)
        assert await name_of(url, token, Origin="https://box.example") == "owner 64"
        with pytest.raises(InvalidStatus, match="403"):
            await name_of(url, token, Origin="https://box.example.evil.example")
