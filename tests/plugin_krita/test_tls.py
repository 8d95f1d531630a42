"""The plugin's thread and servers with certificates of their own: real daemons with TLS."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from underpaint_backend.launch import launched
from underpaint_krita import connection
from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita.events import Disconnected, Reconnecting

from tests.certificates import Pair, self_signed

from .wire import PATIENCE, Client, Proxy, deaf, large_job, serving


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return self_signed(tmp_path)


def test_an_unknown_certificate_is_shown_and_once_trusted_it_is_used(
    client: Client, pair: Pair, tmp_path: Path
) -> None:
    """The artist gets to see whose it is; with the pin there is a connection, over which a job runs."""
    words = ("--threads", "1", "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key))
    with launched(tmp_path / "home", *words) as daemon:
        assert daemon.url.startswith("wss://")
        client.network.connect(daemon.url, daemon.token)
        refused = client.until(Disconnected)
        assert refused.error.code == "unknown_certificate"
        assert (refused.certificate.fingerprint, refused.certificate.subject) == (pair.fingerprint, "box")
        client.network.connect(daemon.url, daemon.token, refused.certificate.fingerprint)
        assert client.until(m.Welcome).server.startswith("underpaint")


def test_the_pin_is_asked_for_again_on_every_connection(client: Client, pair: Pair) -> None:
    """A line that breaks is taken up again with the same server only."""
    with serving(lambda peer: peer.wait(), ssl=pair.server_context()) as server:
        proxy = Proxy(server)
        client.network.connect(proxy.url.replace("ws://", "wss://"), "token", pair.fingerprint)
        client.until(m.Welcome)
        client.events.clear()
        proxy.cut()
        client.until(Reconnecting)
        client.until(m.Welcome)
        proxy.close()


def test_a_server_that_does_not_read_is_left(client: Client, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the thread is in the middle of sending to it, encrypted."""
    monkeypatch.setattr(connection, "SILENCE", 0.3)
    with deaf(ssl=pair.server_context()) as server:
        client.network.connect(server.replace("ws://", "wss://"), "token", pair.fingerprint)
        client.network.submit(large_job())
        client.until(Reconnecting)
        client.network.cancel("large")
        client.network.close(PATIENCE)


def test_a_changed_certificate_is_refused_and_the_token_stays_here(client: Client, pair: Pair) -> None:
    """Nobody is asked, and not a byte goes out beyond the beginning of TLS."""
    heard, context = [], pair.server_context()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            plain, _ = listener.accept()
            with plain, context.wrap_socket(plain, server_side=True) as encrypted:
                heard.append(encrypted.recv(4096))

        thread = threading.Thread(target=listen)
        thread.start()
        client.network.connect(f"wss://127.0.0.1:{listener.getsockname()[1]}", "secret", "0" * 64)
        refused = client.until(Disconnected)
        thread.join(PATIENCE)
    assert refused.error.code == "certificate_changed"
    assert refused.certificate is None
    assert heard == [b""]
