"""The network thread and its connections, against real websocket servers on this machine."""

from __future__ import annotations

import http
import threading
import time
from typing import Any

import pytest
from underpaint_backend.launch import Launched
from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita._vendor.underpaint_protocol.errors import describe
from underpaint_krita.events import Disconnected, Job, Reconnecting
from websockets.sync.server import ServerConnection

from tests.ports import free_port

from .wire import MODEL, PATIENCE, REQUEST, Client, Peer, eventually, serving

wait = Peer.wait


def test_connecting_ends_in_a_welcome(client: Client) -> None:
    """The server's greeting comes out, with its models and limits."""
    with serving(wait) as server:
        client.network.connect(server, "token")
        assert client.until(m.Welcome).models == (MODEL,)


def test_the_token_travels_in_the_header(client: Client) -> None:
    """As a bearer token; no `Origin` is sent, which a daemon refuses."""
    seen = []

    def look(connection: ServerConnection, request: Any) -> None:
        seen.append((request.path, request.headers.get("Authorization"), request.headers.get("Origin")))

    with serving(wait, process_request=look) as server:
        client.network.connect(server, "secret")
        client.until(m.Welcome)
    assert seen == [("/", "Bearer secret", None)]


def test_no_server_is_unreachable(client: Client) -> None:
    """With the address in the sentence."""
    server = f"ws://127.0.0.1:{free_port()}"
    client.network.connect(server, "token")
    assert client.until(Disconnected).error == describe("unreachable", detail=server)


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1", "ws://", "ws://127.0.0.1:99999", "ws://[::1"])
def test_a_wrong_address_is_unreachable(client: Client, address: str) -> None:
    """Whatever was typed into the field, it is a sentence."""
    client.network.connect(address, "token")
    assert client.until(Disconnected).error.code == "unreachable"


@pytest.mark.parametrize("token", ["", "\r\nX: y", "ü", "0" * 64])
def test_a_wrong_token_is_a_sentence(client: Client, daemon: Launched, token: str) -> None:
    """The real daemon's refusal arrives as its own error; a token that no header can hold is never sent."""
    client.network.connect(daemon.url, token)
    assert client.until(Disconnected).error.code == "unauthorized"


def test_the_real_daemon_welcomes(client: Client, daemon: Launched) -> None:
    """With the right token."""
    client.network.connect(daemon.url, daemon.token)
    assert client.until(m.Welcome).server.startswith("underpaint")


def test_another_version_is_a_sentence(client: Client) -> None:
    """A server that does not choose our subprotocol speaks another version."""
    with serving(wait, subprotocols=None) as server:
        client.network.connect(server, "token")
        assert client.until(Disconnected).error.code == "wrong_version"


@pytest.mark.parametrize("body", ["not found", "[]", '{"code": "Bad Code"}', '{"code": 3}'])
def test_something_else_at_the_address_is_unreachable(client: Client, body: str) -> None:
    """An HTTP server that is no daemon."""

    def refuse(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(http.HTTPStatus.NOT_FOUND, body)

    with serving(wait, process_request=refuse) as server:
        client.network.connect(server, "token")
        assert client.until(Disconnected).error.code == "unreachable"


def test_a_server_that_breaks_the_language_is_left(client: Client) -> None:
    """With the reason; nothing that it says later is heard."""

    def talk(peer: Peer) -> None:
        peer.connection.send(b"\xc1 is no msgpack")
        peer.send(m.Status(m.Worker("ready")))
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        assert client.until(Disconnected).error.code == "malformed_message"
        time.sleep(0.2)
        client.collect()
    assert not [event for event in client.events if isinstance(event, m.Status)]


def test_text_is_not_the_language(client: Client) -> None:
    """A server that sends text is left as well."""

    def talk(peer: Peer) -> None:
        peer.connection.send("hello")
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        assert client.until(Disconnected).error.code == "malformed_message"


def test_another_connection_replaces_the_first(client: Client) -> None:
    """The first one is closed, without a word about it."""
    closed = threading.Event()

    def talk(peer: Peer) -> None:
        peer.wait()
        closed.set()

    with serving(talk) as first, serving(wait) as second:
        client.network.connect(first, "token")
        client.until(m.Welcome)
        client.events.clear()
        client.network.connect(second, "token")
        client.until(m.Welcome)
        assert closed.wait(PATIENCE)
        client.collect()
    assert not [event for event in client.events if isinstance(event, Disconnected)]


def test_closing_ends_the_threads() -> None:
    """Nothing of ours runs on when Krita goes."""
    client = Client()
    with serving(wait) as server:
        client.network.connect(server, "token")
        client.until(m.Welcome)
        client.network.close()
        eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("underpaint-")])


def test_a_fault_of_our_own_is_told_and_survived(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong in the thread, the artist hears of it, and the next connection works."""
    with serving(wait) as server:
        client.network.connect(server, "token")
        client.until(m.Welcome)
        client.network.submit(Job("short", REQUEST, pixels=b"four", mask=b"\x00\xff"))
        assert client.until(Disconnected).error.code == "internal"
        assert caplog.records
        client.events.clear()
        client.network.connect(server, "token")
        client.until(m.Welcome)


def test_a_model_is_fetched(client: Client) -> None:
    """The wish travels, and what the server says of it comes out, also what its models are then."""

    def talk(peer: Peer) -> None:
        assert peer.receive(m.Pull) == m.Pull("away")
        peer.send(m.Pulling("away", 5, 10, 2.0))
        assert peer.receive(m.Pull) == m.Pull("away", stop=True)
        peer.send(m.Models((MODEL,)), m.Pulling("away", 5, 10, stopped=True))
        peer.wait()

    with serving(talk) as server:
        client.welcomed(server)
        client.network.pull("away")
        assert client.until(m.Pulling) == m.Pulling("away", 5, 10, 2.0)
        client.network.pull("away", stop=True)
        assert client.until(m.Pulling, lambda news: news.stopped)
        assert client.seen(m.Models) == [m.Models((MODEL,))]


def test_a_model_can_be_asked_for_without_a_connection(client: Client) -> None:
    """The wish is said as soon as there is one again."""
    asked = threading.Event()

    def hang_up(peer: Peer) -> None:
        peer.connection.close()

    def talk(peer: Peer) -> None:
        peer.send(m.Resumed(peer.receive(m.Resume).session, ()))
        peer.receive(m.Pull)
        asked.set()
        peer.wait()

    with serving(hang_up, talk) as server:
        client.welcomed(server)
        client.until(Reconnecting)
        client.network.pull("away")
        assert asked.wait(PATIENCE)
