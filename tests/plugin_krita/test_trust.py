"""Which servers are trusted, tried with real ones: nothing of ours may reach any other."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from underpaint_krita import trust
from underpaint_krita._vendor.websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.certificates import Pair, self_signed, signed

TOKEN = "a" * 64
TIMEOUT = 5.0


@dataclass
class Listener:
    """A server that shows a certificate and keeps whatever it is told."""

    port: int
    heard: bytearray = field(default_factory=bytearray)
    visits: int = 0

    def url(self, host: str = "localhost") -> str:
        return f"wss://{host}:{self.port}"


@contextlib.contextmanager
def listening(context: ssl.SSLContext | None, *, answer: bytes = b"", silent: bool = False) -> Iterator[Listener]:
    """A listener on loopback; without a `context` it speaks no TLS, and a `silent` one does not even answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(server.getsockname()[1])

        def work() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                listener.visits += 1
                with connection, contextlib.suppress(OSError):
                    hear(connection)

        def hear(connection: socket.socket) -> None:
            connection.settimeout(TIMEOUT)
            if silent:
                stop.wait(TIMEOUT)
                return
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                while data := connection.recv(4096):
                    listener.heard += data
                    connection.sendall(answer)

        stop = threading.Event()
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield listener
        finally:
            stop.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def try_to_send_the_token(server: str, pinned: str | None) -> None:
    """Connect as the plugin does."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    context = trust.context_for(server, pinned)
    with connect(server, ssl=context, additional_headers=headers, open_timeout=TIMEOUT):
        pass


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return self_signed(tmp_path)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """One whom this machine trusts."""
    authority = self_signed(tmp_path, "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    return authority


def test_an_unknown_certificate_is_refused(pair: Pair) -> None:
    """Before the first byte of ours, the token least of all; the artist can be asked."""
    with listening(pair.server_context()) as server:
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            try_to_send_the_token(server.url(), None)
        error = trust.refusal(refused.value, server.url())
    assert error is not None
    assert error.code == "unknown_certificate"
    assert "localhost" in error.message
    assert server.heard == b""


def test_what_an_unknown_server_shows_can_be_looked_at(pair: Pair) -> None:
    """Its fingerprint, whom it names, until when, and why it is not trusted; it is told nothing."""
    with listening(pair.server_context()) as server:
        shown = trust.probe(server.url(), TIMEOUT)
    assert (shown.fingerprint, shown.subject, shown.trusted) == (pair.fingerprint, "box", False)
    assert "self" in shown.problem
    assert shown.not_after is not None
    assert timedelta(days=29) < shown.not_after - datetime.now(UTC) < timedelta(days=31)
    assert server.heard == b""


def test_a_pinned_certificate_is_accepted(pair: Pair) -> None:
    """Once the artist said yes, the same server is connected to without a question."""

    def answer(connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.send(connection.request.headers["Authorization"])

    with serve(answer, "127.0.0.1", 0, ssl=pair.server_context()) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"wss://localhost:{server.socket.getsockname()[1]}"
        context = trust.context_for(url, pair.fingerprint.upper())
        with connect(url, ssl=context, additional_headers={"Authorization": TOKEN}) as connection:
            assert connection.recv() == TOKEN
        server.shutdown()


def test_a_changed_certificate_is_refused_loudly(pair: Pair, tmp_path: Path) -> None:
    """Whoever is in between has a certificate of the same name, and gets nothing."""
    other = self_signed(tmp_path, "other", names="subjectAltName=DNS:localhost")
    with listening(other.server_context()) as server:
        with pytest.raises(trust.CertificateChanged) as refused:
            try_to_send_the_token(server.url(), pair.fingerprint)
        error = trust.refusal(refused.value, server.url())
    assert refused.value.fingerprint == other.fingerprint
    assert error is not None
    assert error.code == "certificate_changed"
    assert not error.retryable
    assert server.heard == b""


def test_a_certificate_that_the_system_knows_needs_no_question(authority: Pair, tmp_path: Path) -> None:
    """The connection goes on to the request, under every name that the certificate has."""
    answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    with listening(signed(tmp_path, authority, "box").server_context(), answer=answer) as server:
        for host in ("localhost", "127.0.0.1"):
            assert trust.probe(server.url(host), TIMEOUT).trusted
            assert server.heard == b""
        with pytest.raises(Exception, match="HTTP 500"):
            try_to_send_the_token(server.url(), None)
    assert TOKEN.encode() in server.heard


def test_a_pin_decides_over_the_authorities(authority: Pair, pair: Pair, tmp_path: Path) -> None:
    """Who got a certificate for the same name from somebody whom the system trusts does not get in between."""
    other = signed(tmp_path, authority, "other")
    with listening(other.server_context()) as server, pytest.raises(trust.CertificateChanged):
        try_to_send_the_token(server.url(), pair.fingerprint)
    assert server.heard == b""


@pytest.mark.parametrize(
    ("names", "expired", "problem"),
    [
        ("subjectAltName=DNS:localhost", True, "certificate has expired"),
        ("subjectAltName=DNS:elsewhere.example", False, "not valid for 'localhost'"),
    ],
)
def test_an_authoritys_word_has_bounds(
    authority: Pair, tmp_path: Path, names: str, expired: bool, problem: str
) -> None:
    """It does not hold for other names, nor for ever; what is wrong can be told, and the artist can pin it yet."""
    box = signed(tmp_path, authority, "box", names=names, expired=expired)
    with listening(box.server_context()) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            try_to_send_the_token(server.url(), None)
        shown = trust.probe(server.url(), TIMEOUT)
        assert server.heard == b""
        context = trust.context_for(server.url(), shown.fingerprint)
        assert context is not None
        plain = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
        context.wrap_socket(plain, server_hostname="localhost").close()
    assert not shown.trusted
    assert problem in shown.problem
    assert shown.not_after is not None
    assert (shown.not_after < datetime.now(UTC)) is expired


def test_a_server_without_tls_is_no_server_of_ours() -> None:
    """It is told like one that is not there, and neither a question nor an alarm comes of it."""
    with listening(None, answer=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        for pinned in (None, "0" * 64):
            with pytest.raises(OSError) as refused:  # noqa: PT011 - a different one on each version of OpenSSL
                try_to_send_the_token(server.url(), pinned)
            assert trust.refusal(refused.value, server.url()) is None
        with pytest.raises(OSError):  # noqa: PT011 - as above
            trust.probe(server.url(), TIMEOUT)
    assert TOKEN.encode() not in server.heard


def test_a_server_that_hangs_is_given_up() -> None:
    """After the time that was given."""
    with listening(None, silent=True) as server:
        with pytest.raises(TimeoutError):
            trust.probe(server.url(), 0.2)
        assert server.visits == 1


def test_nobody_there_is_an_error_of_the_system() -> None:
    """Told like any connection that cannot be made."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        trust.probe(f"wss://127.0.0.1:{port}", TIMEOUT)


@pytest.mark.parametrize("server", ["", "nonsense", "https://box.example", "wss://", "wss://box:port", "wss://[abc"])
def test_what_is_no_address_is_said(server: str) -> None:
    """Before anything is looked up."""
    with pytest.raises(ValueError):  # noqa: PT011 - of this module or of urllib
        trust.probe(server, TIMEOUT)


def test_without_encryption_there_is_nothing_to_pin() -> None:
    """On loopback and through `ssh -L` there is no certificate, whatever is remembered."""
    assert trust.context_for("ws://127.0.0.1:8738", None) is None
    assert trust.context_for("ws://127.0.0.1:8738", "0" * 64) is None
    assert trust.refusal(ConnectionRefusedError(), "ws://127.0.0.1:8738") is None


def test_an_empty_pin_accepts_nobody(pair: Pair) -> None:
    """A damaged setting is no open door."""
    with listening(pair.server_context()) as server, pytest.raises(trust.CertificateChanged):
        try_to_send_the_token(server.url(), "")
