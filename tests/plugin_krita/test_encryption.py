"""Reading and writing at once over TLS, with real sockets."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita.encryption import EncryptedSocket, Encryption
from underpaint_krita.trust import context_for

from tests.certificates import Pair, self_signed

from .wire import PATIENCE, Client, Peer, serving

MUCH = random.Random(8).randbytes(8 << 20)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("certificate"))


@contextlib.contextmanager
def connected(pair: Pair) -> Iterator[tuple[EncryptedSocket, ssl.SSLSocket]]:
    """Both ends of an encrypted line; ours is the first."""
    context = context_for("wss://localhost", pair.fingerprint)
    assert context is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plain = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    encrypted: list[ssl.SSLSocket] = []

    def shake_hands() -> None:
        encrypted.append(pair.server_context().wrap_socket(theirs, server_side=True))

    other = threading.Thread(target=shake_hands)
    other.start()
    ours = Encryption(context).wrap_socket(plain, "localhost")
    other.join(PATIENCE)
    with contextlib.closing(ours), encrypted[0] as theirs:
        yield ours, theirs


def read_all(line: EncryptedSocket | ssl.SSLSocket, size: int) -> bytes:
    """Read so many bytes."""
    data = bytearray()
    while len(data) < size:
        data += line.recv(1 << 16)
    return bytes(data)


def test_much_goes_both_ways_at_once(pair: Pair) -> None:
    """More than the buffers hold, and every byte is there."""
    with connected(pair) as (ours, theirs):

        def echo() -> None:
            for _ in range(len(MUCH) // (1 << 16)):
                theirs.sendall(read_all(theirs, 1 << 16))

        came: list[bytes] = []
        reader = threading.Thread(target=lambda: came.append(read_all(ours, len(MUCH))))
        echoing = threading.Thread(target=echo)
        reader.start()
        echoing.start()
        ours.sendall(MUCH)
        reader.join(PATIENCE)
        echoing.join(PATIENCE)
    assert came == [MUCH]


def test_shutting_down_wakes_a_reader_and_a_writer(pair: Pair) -> None:
    """Both of whom waited for somebody who does nothing."""
    with connected(pair) as (ours, _):
        ends: list[object] = []

        def read() -> None:
            ends.append(ours.recv(1))

        def write() -> None:
            with pytest.raises(OSError, match=r"."):
                ours.sendall(MUCH)
            ends.append("written")

        threads = [threading.Thread(target=read), threading.Thread(target=write)]
        for thread in threads:
            thread.start()
        threads[1].join(0.3)
        assert threads[1].is_alive()
        ours.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)
    assert len(ends) == 2


def test_closing_wakes_a_reader(pair: Pair) -> None:
    """At whatever moment it comes."""
    for number in range(100):
        with connected(pair) as (ours, _):
            ends: list[object] = []

            def read(ours: EncryptedSocket = ours, ends: list[object] = ends) -> None:
                with contextlib.suppress(OSError):
                    ours.recv(1)
                ends.append("read")

            reader = threading.Thread(target=read)
            reader.start()
            time.sleep(number % 10 / 20_000)
            ours.close()
            reader.join(PATIENCE)
            assert ends == ["read"]


def test_a_wait_has_an_end(pair: Pair) -> None:
    """If it was given one."""
    with connected(pair) as (ours, theirs):
        ours.settimeout(0.1)
        with pytest.raises(TimeoutError):
            ours.recv(1)
        with pytest.raises(TimeoutError):
            ours.sendall(MUCH)
        theirs.close()


def test_no_connection_loses_its_first_words(pair: Pair) -> None:
    """Which go out while the other thread reads the end of the handshake."""
    with serving(Peer.wait, ssl=pair.server_context()) as server:
        for _ in range(60):
            client = Client()
            client.network.connect(server.replace("ws://", "wss://"), "token", pair.fingerprint)
            client.until(m.Welcome)
            client.network.close(PATIENCE)
