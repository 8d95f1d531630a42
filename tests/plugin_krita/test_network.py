"""The network thread, against real websocket servers on this machine."""

from __future__ import annotations

import http
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from underpaint_backend.launch import Launched
from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita._vendor.underpaint_protocol.errors import describe
from underpaint_krita.events import Disconnected, Finished, Job, Place, Reconnecting
from websockets.sync.server import ServerConnection

from .wire import JOB, LARGE_TILES, MODEL, PATIENCE, REQUEST, Client, Peer, eventually, free_port, large_job, serving

wait = Peer.wait


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.network.close(PATIENCE)


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


def test_a_job_from_beginning_to_end(client: Client) -> None:
    """Pixels are sent as red, green, blue, alpha; the picture comes back as Krita keeps it."""
    received: list[Any] = []

    def talk(peer: Peer) -> None:
        submit, tiles = peer.take_job()
        received.append([tiles[name] for image in submit.request.images for name in image.tiles])
        peer.send(m.Accepted(submit.job, 0), m.Started(submit.job, 1), m.Progress(submit.job, "denoising", 0.5, 1, 2))
        peer.give(submit.job, 2, 1, b"RGBArgba")
        peer.send(m.Done(submit.job, 1.0))
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.until(m.Welcome)
        client.network.submit(JOB)
        client.until(m.Done)
    assert received == [[b"\x03\x02\x01\x04\x07\x06\x05\x08", JOB.mask]]
    kinds = [type(event) for event in client.events]
    assert kinds == [m.Welcome, m.Accepted, m.Started, m.Progress, Finished, m.Done]
    assert client.events[4] == Finished(JOB.id, 0, 7, b"BGRAbgra")


def test_tiles_lie_on_the_grid_of_the_canvas(client: Client) -> None:
    """A picture that crosses a line of the grid travels in two tiles, and says where it lies."""
    images: list[m.Image] = []

    def talk(peer: Peer) -> None:
        images.extend(peer.take_job()[0].request.images)
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(Job("job-1", REQUEST, JOB.pixels, JOB.mask, Place(255, 3, 600, 400)))
        eventually(lambda: images)
        client.network.cancel("job-1")
    assert [(image.x, image.y, len(image.tiles)) for image in images] == [(255, 3, 2), (255, 3, 2)]


def test_a_job_without_pixels_sends_none(client: Client) -> None:
    """A picture from nothing needs no upload."""
    seen = []

    def talk(peer: Peer) -> None:
        seen.append(m.vocabulary.decode(peer.connection.recv()))  # type: ignore[arg-type]
        peer.send(m.Accepted("job-2", 0), m.Cancelled("job-2"))
        peer.wait()

    request = m.Request(model="primer", task="text_to_image", width=8, height=8)
    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(Job("job-2", request))
        client.until(m.Cancelled)
    assert seen == [m.Submit("job-2", request)]


def test_cancel_is_sent_and_the_rest_is_silence(client: Client) -> None:
    """The server is asked to stop; its answer is acknowledged, and concerns nobody any more."""
    acknowledged = []

    def talk(peer: Peer) -> None:
        job = peer.accept_job()
        assert peer.receive(m.Cancel).job == job
        peer.send(m.Cancelled(job))
        acknowledged.append(peer.receive(m.Acknowledge).job)
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Started)
        client.network.cancel(JOB.id)
        eventually(lambda: acknowledged)
        client.collect()
    assert acknowledged == [JOB.id]
    assert not client.seen(m.Cancelled)


def test_cancel_overtakes_an_upload(client: Client) -> None:
    """What was not sent yet of a cancelled job is never sent."""
    heard: list[Any] = []

    def talk(peer: Peer) -> None:
        have = peer.receive(m.Have)
        peer.send(m.Missing(have.tiles, query=have.query))
        heard.append(peer.receive(m.Tile))
        client.network.cancel("large")
        while not isinstance(heard[-1], m.Cancel):
            time.sleep(0.05)  # so that the client, not the line, decides what comes next
            heard.append(peer.receive(m.Tile, m.Submit, m.Cancel))
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(large_job())
        eventually(lambda: heard and isinstance(heard[-1], m.Cancel))
    assert len(heard) < LARGE_TILES
    assert not [message for message in heard if isinstance(message, m.Submit)]


def test_a_cancelled_job_does_not_disturb_the_next(client: Client) -> None:
    """While the server still stops the one, the other is accepted, painted and finished."""

    def talk(peer: Peer) -> None:
        first, second = peer.accept_job(), peer.accept_job()
        peer.send(m.Progress(first, "denoising", 0.5), m.Progress(second, "denoising", 0.1))
        peer.preview(first, 1, b"first")
        peer.preview(second, 1, b"second")
        time.sleep(0.3)
        peer.send(m.Cancelled(first), m.Done(second, 1.0))
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Started)
        client.network.cancel(JOB.id)
        client.network.submit(Job("job-2", REQUEST, JOB.pixels, JOB.mask))
        client.until(m.Done)
    assert {event.job for event in client.seen((m.Progress, m.Cancelled, m.Done))} == {"job-2"}  # type: ignore[arg-type]
    assert {frame.job for frame in client.frames} == {"job-2"}


def test_a_picture_is_acknowledged_when_it_is_safe(client: Client) -> None:
    """Not when it has come; and if it is safe before the job is done, then once that is."""
    heard: list[m.Acknowledge] = []
    go_on = threading.Event()

    def talk(peer: Peer) -> None:
        for _ in range(2):
            job = peer.accept_job()
            peer.give(job, 2, 1, b"RGBArgba")
            assert go_on.wait(PATIENCE)
            peer.send(m.Done(job, 1.0))
            heard.append(peer.receive(m.Acknowledge))
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        go_on.set()
        client.until(m.Done)
        time.sleep(0.2)
        assert not heard
        client.network.acknowledge(JOB.id)
        eventually(lambda: len(heard) == 1)
        go_on.clear()
        client.network.submit(Job("job-2", REQUEST, JOB.pixels, JOB.mask))
        client.until(Finished, lambda event: event.job == "job-2")
        client.network.acknowledge("job-2")
        time.sleep(0.2)
        go_on.set()
        client.until(m.Done, lambda event: event.job == "job-2")
        eventually(lambda: len(heard) == 2)
    assert [message.job for message in heard] == [JOB.id, "job-2"]


def test_a_failure_is_acknowledged_by_itself(client: Client) -> None:
    """There is no picture to wait for."""
    heard = []

    def talk(peer: Peer) -> None:
        job = peer.accept_job()
        peer.send(m.Failed(job, describe("out_of_memory", detail="8 GiB")))
        heard.append(peer.receive(m.Acknowledge).job)
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        assert client.until(m.Failed).error.code == "out_of_memory"
        eventually(lambda: heard)
    assert heard == [JOB.id]


def test_a_refused_job_is_an_error_and_nothing_more(client: Client) -> None:
    """The connection stays, and the next job runs."""

    def talk(peer: Peer) -> None:
        peer.send(m.Error(describe("unknown_model", detail="x"), peer.take_job()[0].job))
        peer.send(m.Done(peer.accept_job(), 0.1))
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        assert client.until(m.Error).error.code == "unknown_model"
        client.network.submit(JOB)
        client.until(m.Done)
    assert not client.seen(Disconnected)


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
        job = peer.accept_job()
        peer.preview(job, 0, b"first")
        assert begun.wait(PATIENCE)
        for step in range(1, 10):
            peer.preview(job, step, b"%d" % step)
        peer.send(m.Progress(job, "denoising", 0.9))
        time.sleep(0.3)  # until all of it has arrived
        go_on.set()
        peer.wait()

    client = Client(develop)
    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Progress)
        eventually(lambda: len(developed) == 2)
        client.network.close()
    assert developed == [b"first", b"9"]


def test_a_preview_that_is_no_picture_is_passed_over() -> None:
    """The job goes on; the next preview will do."""

    def refuse(data: bytes, *rest: Any) -> bytes:
        if data == b"bad":
            raise ValueError("the preview is not a JPEG")
        return data

    def talk(peer: Peer) -> None:
        job = peer.accept_job()
        peer.preview(job, 1, b"bad")
        time.sleep(0.2)
        peer.preview(job, 2, b"good")
        time.sleep(0.2)
        peer.send(m.Done(job, 1.0))
        peer.wait()

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
        job = peer.accept_job()
        peer.preview(job, 1, b"late")
        peer.send(m.Done(job, 1.0))
        peer.wait()

    with serving(talk) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Done)
        client.collect()
        ended = len(client.frames)
        time.sleep(0.3)
        client.collect()
    assert len(client.frames) == ended


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


def test_a_job_without_a_connection_ends_at_once(client: Client) -> None:
    """As one whose connection was lost."""
    client.network.submit(JOB)
    assert client.until(Disconnected).error.code == "disconnected"


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


def test_the_daemon_is_started_and_found(client: Client, home: Path) -> None:
    """One call starts it, waits until it listens, and connects with the token that it made."""
    port = free_port()
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
    with serving(wait) as server:
        client.network.start_daemon(server, lambda: "token")
        client.until(m.Welcome)
    assert not (home / "started").exists()


@pytest.mark.parametrize(
    ("command", "code"), [(["sh", "-c", "exit 3"], "not_started"), (["/no/such/program"], "not_started")]
)
def test_a_daemon_that_does_not_start_is_a_sentence(client: Client, home: Path, command: list[str], code: str) -> None:
    """Whether it cannot be run or gives up."""
    (home / "launch.json").write_text(json.dumps(command))
    client.network.start_daemon(f"ws://127.0.0.1:{free_port()}", lambda: "token")
    assert client.until(Disconnected).error.code == code


def test_no_daemon_on_this_machine_is_a_sentence(client: Client, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to start."""
    monkeypatch.setenv("PATH", str(home))
    client.network.start_daemon(f"ws://127.0.0.1:{free_port()}", lambda: "token")
    assert client.until(Disconnected).error.code == "not_installed"


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


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
