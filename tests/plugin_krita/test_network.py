"""The network thread, against real websocket servers on this machine."""

from __future__ import annotations

import contextlib
import http
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from underpaint_backend.launch import Launched
from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita._vendor.underpaint_protocol.blobs import chunks, image_of
from underpaint_krita._vendor.underpaint_protocol.errors import describe
from underpaint_krita.mailbox import Mailbox
from underpaint_krita.network import Disconnected, Finished, Frame, Job, Network
from underpaint_krita.pixels import with_red_and_blue_swapped
from websockets.sync.server import Server, ServerConnection, serve

MODEL = m.Model("primer", "Primer", "stable_diffusion", ("inpaint",), ("ddim",), 16384, 8, 12, 3.0, "ddim")
WELCOME = m.Welcome("test", m.Worker("ready", "cpu"), (MODEL,), m.Limits(1 << 24, 4, 4, 1 << 28))
REQUEST = m.Request(model="primer", task="inpaint", width=2, height=1, prompt="red")
JOB = Job("job-1", REQUEST, pixels=b"\x01\x02\x03\x04\x05\x06\x07\x08", mask=b"\x00\xff")
PATIENCE = 20.0

Talk = Callable[["Peer"], None]


class Peer:
    """The server's end of one connection."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection

    def send(self, *sent: Any) -> None:
        for message in sent:
            self.connection.send(m.vocabulary.encode(message))

    def receive(self, kind: type[Any]) -> Any:
        """The next message of this type; others are passed over."""
        while True:
            message = m.vocabulary.decode(self.connection.recv(PATIENCE))  # type: ignore[arg-type]
            if isinstance(message, kind):
                return message

    def preview(self, step: int, data: bytes) -> None:
        self.send(m.Preview(JOB.id, 0, step, 8, 8, data, 0.0))


class Client:
    """A network thread with a mailbox, and what has come out of it."""

    def __init__(self, develop: Callable[..., bytes] = lambda data, *rest: data) -> None:
        self.woken = threading.Event()
        self.mailbox: Mailbox[Any, Frame] = Mailbox(self.woken.set)
        self.network = Network(self.mailbox, develop, with_red_and_blue_swapped)
        self.events: list[Any] = []
        self.frames: list[Frame] = []

    def until(self, kind: type[Any]) -> Any:
        """Collect until an event of this type comes, and return it."""
        end = time.monotonic() + PATIENCE
        while not any(isinstance(event, kind) for event in self.events):
            assert self.woken.wait(end - time.monotonic()), f"no {kind.__name__} among {self.events}"
            self.collect()
        return next(event for event in self.events if isinstance(event, kind))

    def collect(self) -> None:
        self.woken.clear()
        events, frame = self.mailbox.collect()
        self.events += events
        self.frames += [frame] if frame is not None else []


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.network.close()


@contextlib.contextmanager
def serving(talk: Talk, **options: Any) -> Iterator[str]:
    """A websocket server on a free port that greets each client and then talks as told; its address."""

    def handle(connection: ServerConnection) -> None:
        peer = Peer(connection)
        with contextlib.suppress(Exception):
            peer.receive(m.Hello)
            peer.send(WELCOME)
            talk(peer)

    options = {"subprotocols": [m.SUBPROTOCOL], "compression": None, **options}
    with serve(handle, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{_port(server)}"
        finally:
            server.shutdown()
            thread.join()


def _port(server: Server) -> int:
    return int(server.socket.getsockname()[1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(peer: Peer) -> None:
    with contextlib.suppress(Exception):
        peer.connection.recv()


def test_connecting_ends_in_a_welcome(client: Client) -> None:
    """The server's greeting comes out, with its models and limits."""
    with serving(_wait) as server:
        client.network.connect(server, "token")
        assert client.until(m.Welcome).models == (MODEL,)


def test_the_token_travels_in_the_header(client: Client) -> None:
    """As a bearer token; no `Origin` is sent, which a daemon refuses."""
    seen = []

    def look(connection: ServerConnection, request: Any) -> None:
        seen.append((request.path, request.headers.get("Authorization"), request.headers.get("Origin")))

    with serving(_wait, process_request=look) as server:
        client.network.connect(server, "secret")
        client.until(m.Welcome)
    assert seen == [("/", "Bearer secret", None)]


def test_no_server_is_unreachable(client: Client) -> None:
    """With the address in the sentence."""
    server = f"ws://127.0.0.1:{_free_port()}"
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
    with serving(_wait, subprotocols=None) as server:
        client.network.connect(server, "token")
        assert client.until(Disconnected).error.code == "wrong_version"


@pytest.mark.parametrize("body", ["not found", "[]", '{"code": "Bad Code"}', '{"code": 3}'])
def test_something_else_at_the_address_is_unreachable(client: Client, body: str) -> None:
    """An HTTP server that is no daemon."""

    def refuse(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(http.HTTPStatus.NOT_FOUND, body)

    with serving(_wait, process_request=refuse) as server:
        client.network.connect(server, "token")
        assert client.until(Disconnected).error.code == "unreachable"


def test_a_job_from_beginning_to_end(client: Client) -> None:
    """Pixels are sent as red, green, blue, alpha; the picture comes back as Krita keeps it."""
    received = []

    def talk(peer: Peer) -> None:
        received.extend([peer.receive(m.BlobChunk).data, peer.receive(m.BlobChunk).data])
        submit = peer.receive(m.Submit)
        received.append(submit.request.image)
        picture = image_of(2, 1, 4, b"RGBArgba")
        peer.send(m.Accepted(submit.job, 0), m.Progress(submit.job, "denoising", 0.5, 1, 2))
        peer.send(*chunks(picture.blob, b"RGBArgba"), m.Result(submit.job, 0, 7, picture), m.Done(submit.job, 1.0))
        _wait(peer)

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.until(m.Welcome)
        client.network.submit(JOB)
        client.until(m.Done)
    sent = b"\x03\x02\x01\x04\x07\x06\x05\x08"
    assert received == [sent, JOB.mask, image_of(2, 1, 4, sent)]
    kinds = [type(event) for event in client.events]
    assert kinds == [m.Welcome, m.Accepted, m.Progress, Finished, m.Done]
    assert client.events[3] == Finished(JOB.id, 0, 7, b"BGRAbgra")


def test_a_job_without_pixels_sends_none(client: Client) -> None:
    """A picture from nothing needs no upload."""
    seen = []

    def talk(peer: Peer) -> None:
        seen.append(m.vocabulary.decode(peer.connection.recv()))  # type: ignore[arg-type]
        peer.send(m.Accepted("job-2", 0), m.Cancelled("job-2"))
        _wait(peer)

    request = m.Request(model="primer", task="text_to_image", width=8, height=8)
    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(Job("job-2", request))
        client.until(m.Cancelled)
    assert seen == [m.Submit("job-2", request)]


def test_cancel_is_sent(client: Client) -> None:
    """The server is asked to stop."""

    def talk(peer: Peer) -> None:
        job = peer.receive(m.Submit).job
        peer.send(m.Accepted(job, 0))
        assert peer.receive(m.Cancel).job == job
        peer.send(m.Cancelled(job))
        _wait(peer)

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Accepted)
        client.network.cancel(JOB.id)
        assert client.until(m.Cancelled).job == JOB.id


def test_a_refused_job_is_an_error_and_nothing_more(client: Client) -> None:
    """The connection stays, and the next job runs."""

    def talk(peer: Peer) -> None:
        peer.send(m.Error(describe("unknown_model", detail="x"), peer.receive(m.Submit).job))
        job = peer.receive(m.Submit).job
        peer.send(m.Accepted(job, 0), m.Done(job, 0.1))
        _wait(peer)

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        assert client.until(m.Error).error.code == "unknown_model"
        client.network.submit(JOB)
        client.until(m.Done)
    assert not [event for event in client.events if isinstance(event, Disconnected)]


def test_only_the_newest_preview_is_developed() -> None:
    """When previews come faster than they can be developed, those in between are dropped, the last one never."""
    developed = []
    begun, go_on = threading.Event(), threading.Event()

    def develop(data: bytes, width: int, height: int, mask: bytes | None) -> bytes:
        begun.set()
        assert go_on.wait(PATIENCE)
        developed.append(data)
        return data

    def talk(peer: Peer) -> None:
        job = peer.receive(m.Submit).job
        peer.send(m.Accepted(job, 0))
        peer.preview(0, b"first")
        assert begun.wait(PATIENCE)
        for step in range(1, 10):
            peer.preview(step, b"%d" % step)
        peer.send(m.Progress(job, "denoising", 0.9))
        time.sleep(0.3)  # until all of it has arrived
        go_on.set()
        _wait(peer)

    client = Client(develop)
    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Progress)
        _until(lambda: len(developed) == 2)
        client.network.close()
    assert developed == [b"first", b"9"]


def test_a_preview_that_is_no_picture_is_passed_over(client: Client) -> None:
    """The job goes on; the next preview will do."""

    def refuse(data: bytes, *rest: Any) -> bytes:
        if data == b"bad":
            raise ValueError("the preview is not a JPEG")
        return data

    def talk(peer: Peer) -> None:
        job = peer.receive(m.Submit).job
        peer.send(m.Accepted(job, 0))
        peer.preview(1, b"bad")
        time.sleep(0.2)
        peer.preview(2, b"good")
        time.sleep(0.2)
        peer.send(m.Done(job, 1.0))
        _wait(peer)

    client = Client(refuse)
    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Done)
        client.network.close()
    assert [frame.pixels for frame in client.frames] == [b"good"]


def test_no_preview_comes_after_the_end(client: Client) -> None:
    """One that was waiting to be developed when its job ended is dropped."""

    def talk(peer: Peer) -> None:
        job = peer.receive(m.Submit).job
        peer.send(m.Accepted(job, 0))
        peer.preview(1, b"late")
        peer.send(m.Done(job, 1.0))
        _wait(peer)

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Done)
        client.collect()
        ended = len(client.frames)
        time.sleep(0.3)
        client.collect()
    assert len(client.frames) == ended


def test_a_server_that_goes_is_said_once(client: Client) -> None:
    """A job whose server vanishes ends in one event."""

    def talk(peer: Peer) -> None:
        peer.send(m.Accepted(peer.receive(m.Submit).job, 0))
        peer.connection.socket.shutdown(socket.SHUT_RDWR)

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        assert client.until(Disconnected).error == describe("disconnected")
        time.sleep(0.3)
        client.collect()
    assert len([event for event in client.events if isinstance(event, Disconnected)]) == 1


def test_a_server_that_breaks_the_language_is_left(client: Client) -> None:
    """With the reason; nothing that it says later is heard."""

    def talk(peer: Peer) -> None:
        peer.connection.send(b"\xc1 is no msgpack")
        peer.send(m.Status(m.Worker("ready")))
        _wait(peer)

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
        _wait(peer)

    with serving(talk) as server:
        client.network.connect(server, "token")
        assert client.until(Disconnected).error.code == "malformed_message"


def test_a_job_without_a_connection_ends_at_once(client: Client) -> None:
    """As one whose connection was lost."""
    client.network.submit(JOB)
    assert client.until(Disconnected).error.code == "disconnected"


def test_another_connection_replaces_the_first(client: Client) -> None:
    """The first one is closed, without a word about it."""
    closed = threading.Event()

    def talk(peer: Peer) -> None:
        _wait(peer)
        closed.set()

    with serving(talk) as first, serving(_wait) as second:
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
    with serving(_wait) as server:
        client.network.connect(server, "token")
        client.until(m.Welcome)
        client.network.close()
        _until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("underpaint-")])


def test_the_daemon_is_started_and_found(client: Client, home: Path) -> None:
    """One call starts it, waits until it listens, and connects with the token that it made."""
    port = _free_port()
    words = [sys.executable, "-P", "-m", "underpaint_backend", "serve", "--port", str(port)]
    (home / "launch.json").write_text(json.dumps(words))
    try:
        client.network.start_daemon(f"ws://127.0.0.1:{port}", lambda: _read(home / "token"))
        assert client.until(m.Welcome).server
    finally:
        assert client.network.started is not None
        client.network.started.terminate()
        client.network.started.wait(PATIENCE)


def test_a_daemon_that_runs_is_not_started_again(client: Client, home: Path) -> None:
    """If it came up meanwhile, it is used."""
    (home / "launch.json").write_text(json.dumps(["sh", "-c", f'touch "{home}/started"']))
    with serving(_wait) as server:
        client.network.start_daemon(server, lambda: "token")
        client.until(m.Welcome)
    assert not (home / "started").exists()


@pytest.mark.parametrize(
    ("command", "code"), [(["sh", "-c", "exit 3"], "not_started"), (["/no/such/program"], "not_started")]
)
def test_a_daemon_that_does_not_start_is_a_sentence(client: Client, home: Path, command: list[str], code: str) -> None:
    """Whether it cannot be run or gives up."""
    (home / "launch.json").write_text(json.dumps(command))
    client.network.start_daemon(f"ws://127.0.0.1:{_free_port()}", lambda: "token")
    assert client.until(Disconnected).error.code == code


def test_no_daemon_on_this_machine_is_a_sentence(client: Client, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to start."""
    monkeypatch.setenv("PATH", str(home))
    client.network.start_daemon(f"ws://127.0.0.1:{_free_port()}", lambda: "token")
    assert client.until(Disconnected).error.code == "not_installed"


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_fault_of_our_own_is_told_and_survived(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong in the thread, the artist hears of it, and the next connection works."""
    with serving(_wait) as server:
        client.network.connect(server, "token")
        client.until(m.Welcome)
        client.network.submit(Job("short", REQUEST, pixels=b"four", mask=b"\x00\xff"))
        assert client.until(Disconnected).error.code == "internal"
        client.events.clear()
        client.network.connect(server, "token")
        client.until(m.Welcome)
