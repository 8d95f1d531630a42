"""Lost connections, killed daemons and Kritas that died, with real daemons behind a proxy that cuts the line."""

from __future__ import annotations

import http
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from underpaint_backend.launch import Launched, launch
from underpaint_krita import backoff, connection
from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita._vendor.underpaint_protocol.errors import describe
from underpaint_krita.events import Disconnected, Finished, Job, Place, Reconnecting, Remembered
from underpaint_krita.notebook import Notebook
from websockets.sync.server import ServerConnection

from .wire import JOB, PATIENCE, REQUEST, Client, Peer, Proxy, deaf, eventually, large_job, serving

SIDE = 512
NOISE = random.Random(3).randbytes(4 * SIDE * SIDE)
MASK = b"\xff" * (SIDE * SIDE)
LIFE = 1000
"""More steps than a test waits for."""


@pytest.fixture
def proxy(daemon: Launched) -> Iterator[Proxy]:
    """In front of the daemon of all tests."""
    proxy = Proxy(daemon.url)
    yield proxy
    proxy.close()


def job(name: str, steps: int = 4, pixels: bytes = NOISE) -> Job:
    request = m.Request(model="primer-inpaint", task="inpaint", width=SIDE, height=SIDE, prompt="red", steps=steps)
    return Job(name, request, pixels, MASK, Place(width=SIDE, height=SIDE))


def is_denoising(event: m.Progress) -> bool:
    return event.phase == "denoising" and event.step >= 2


def check_end(client: Client, name: str) -> None:
    """The job was accepted once, and has one picture and one end."""
    mine = [event for event in client.events if getattr(event, "job", None) == name]
    assert [type(event) for event in mine if isinstance(event, (m.Accepted, Finished, m.Done, m.Failed))] == [
        m.Accepted,
        Finished,
        m.Done,
    ]
    assert len(client.seen(Finished)[0].pixels) == len(NOISE)


def test_a_line_cut_in_the_middle_of_the_upload(client: Client, proxy: Proxy, daemon: Launched) -> None:
    """The rest of the pixels goes over the next one, and the job ends as if nothing had been."""
    client.welcomed(proxy.url, daemon.token)
    proxy.cut_after("up", 600_000)
    client.network.submit(job("upload", pixels=NOISE[::-1]))
    client.until(m.Done)
    assert client.seen(Reconnecting)
    check_end(client, "upload")


def test_a_line_cut_in_the_middle_of_painting(client: Client, proxy: Proxy, daemon: Launched) -> None:
    """Painting goes on meanwhile; what was missed comes after."""
    client.welcomed(proxy.url, daemon.token)
    client.network.submit(job("painting", steps=60))
    client.until(m.Progress, is_denoising)
    proxy.cut()
    client.until(m.Done)
    assert client.seen(Reconnecting)[0].error == describe("disconnected")
    assert [event.attempt for event in client.seen(m.Started)] == [1]
    check_end(client, "painting")


def test_a_line_cut_in_the_middle_of_the_picture(client: Client, proxy: Proxy, daemon: Launched) -> None:
    """The tiles that are missing come over the next one."""
    client.welcomed(proxy.url, daemon.token)
    client.network.submit(job("picture"))
    proxy.cut_after("down", 400_000)
    client.until(m.Done)
    assert client.seen(Reconnecting)
    check_end(client, "picture")


def test_a_line_that_is_cut_all_the_time(
    client: Client, proxy: Proxy, daemon: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it breaks, each job that is not cancelled has its picture once."""
    monkeypatch.setattr(backoff, "LONGEST", 0.1)
    draw, over = random.Random(11), threading.Event()

    def cut() -> None:
        while not over.wait(draw.uniform(0.05, 0.6)):
            proxy.cut() if draw.random() < 0.5 else proxy.cut_after("up", draw.randrange(300_000))

    cutting = threading.Thread(target=cut)
    cutting.start()
    client.network.connect(proxy.url, daemon.token)
    for number in range(6):
        name = f"cut-{number}"
        client.network.submit(job(name, steps=6, pixels=random.Random(100 + number).randbytes(len(NOISE))))
        if number % 3 == 2:
            time.sleep(0.2)
            client.network.cancel(name)
        else:
            client.until(m.Done, lambda event, name=name: event.job == name)
            client.network.acknowledge(name)
    over.set()
    cutting.join()
    assert len(client.seen(Reconnecting)) > 3
    assert [event.job for event in client.seen(Finished)] == ["cut-0", "cut-1", "cut-3", "cut-4"]


def test_only_changed_tiles_travel(client: Client, proxy: Proxy, daemon: Launched) -> None:
    """For the second job, after one brush stroke, less than a hundredth of the first one's bytes."""
    client.welcomed(proxy.url, daemon.token)
    painted = bytearray(random.Random(4).randbytes(len(NOISE)))
    client.network.submit(job("whole", pixels=bytes(painted)))
    client.until(m.Done)
    whole = proxy.passed["up"]
    painted[4000:4080] = bytes(80)
    client.network.submit(job("stroke", pixels=bytes(painted)))
    client.until(m.Done, lambda event: event.job == "stroke")
    stroke = proxy.passed["up"] - whole
    assert whole > 4 * SIDE * SIDE
    assert stroke < whole / 100


def test_cancel_without_a_connection(client: Client, proxy: Proxy, daemon: Launched) -> None:
    """It reaches the daemon with the next one: the job behind it need not wait."""
    client.welcomed(proxy.url, daemon.token)
    client.network.submit(job("endless", steps=LIFE))
    client.until(m.Progress, is_denoising)
    proxy.open = False
    proxy.cut()
    client.until(Reconnecting)
    client.network.cancel("endless")
    client.network.submit(job("next", steps=2))
    time.sleep(0.5)
    proxy.open = True
    assert client.until(m.Done).job == "next"
    assert not client.seen(m.Cancelled)


def test_the_place_in_the_queue_is_told(client: Client, daemon: Launched) -> None:
    """And told again when it changes."""
    other = Client()
    other.welcomed(daemon.url, daemon.token)
    other.network.submit(job("before", steps=LIFE))
    other.until(m.Started)
    client.welcomed(daemon.url, daemon.token)
    client.network.submit(job("behind", steps=2))
    assert client.until(m.Accepted).position == 1
    other.network.cancel("before")
    client.until(m.Started)
    other.network.close(PATIENCE)
    assert [event.position for event in client.seen(m.Position)] in ([], [0])
    client.until(m.Done)


def test_a_killed_daemon_that_is_started_again(client: Client, own_daemon: Launched) -> None:
    """The job begins once more, and its picture comes over the same session."""
    client.welcomed(own_daemon.url, own_daemon.token)
    client.network.submit(job("killed", steps=40))
    client.until(m.Progress, is_denoising)
    own_daemon.process.kill()
    own_daemon.process.wait()
    assert client.until(Reconnecting, lambda event: event.error.code == "unreachable").seconds < 1
    again = launch(own_daemon.home, "--threads", "1", port=int(own_daemon.url.rpartition(":")[2]))
    try:
        client.until(m.Done)
    finally:
        again.stop()
    assert [event.attempt for event in client.seen(m.Started)] == [1, 2]
    check_end(client, "killed")


def test_a_daemon_that_is_stopped_and_started_again(client: Client, own_daemon: Launched) -> None:
    """It says that it goes; the picture comes from its successor."""
    client.welcomed(own_daemon.url, own_daemon.token)
    client.network.submit(job("stopped", steps=40))
    client.until(m.Progress, is_denoising)
    own_daemon.stop()
    client.until(Reconnecting, lambda event: event.error.code == "unreachable")
    assert client.seen(m.Status, lambda event: event.draining)
    again = launch(own_daemon.home, "--threads", "1", port=int(own_daemon.url.rpartition(":")[2]))
    try:
        client.until(m.Done)
    finally:
        again.stop()
    check_end(client, "stopped")


def test_the_picture_of_a_krita_that_died(daemon: Launched, tmp_path: Path) -> None:
    """The next one hears of the job, where its picture belongs, and gets it; then nothing is remembered any more."""
    path = tmp_path / "krita-jobs.json"
    first = Client(notebook=Notebook(path))
    first.welcomed(daemon.url, daemon.token)
    first.network.submit(job("orphan", steps=30))
    first.until(m.Progress, is_denoising)
    first.network.close(PATIENCE)
    second = Client(notebook=Notebook(path))
    second.welcomed(daemon.url, daemon.token)
    second.until(m.Done)
    second.network.acknowledge("orphan")
    second.network.close(PATIENCE)
    (remembered,) = second.seen(Remembered)
    assert [(one.id, one.request, one.place) for one in remembered.jobs] == [
        ("orphan", job("orphan", steps=30).request, Place(width=SIDE, height=SIDE))
    ]
    check_end(second, "orphan")
    third = Client(notebook=Notebook(path))
    third.welcomed(daemon.url, daemon.token)
    third.network.close(PATIENCE)
    assert not third.seen(Remembered)


def test_a_picture_that_was_forgotten_is_said(daemon: Launched, tmp_path: Path) -> None:
    """A job that never reached the daemon, or that it does not keep any more, ends too."""
    notebook = Notebook(tmp_path / "krita-jobs.json")
    notebook.begin(daemon.url, "0" * 32)
    notebook.add(daemon.url, job("gone"))
    client = Client(notebook=Notebook(tmp_path / "krita-jobs.json"))
    client.welcomed(daemon.url, daemon.token)
    assert client.until(m.Failed) == m.Failed("gone", describe("unknown_job"))
    client.network.close(PATIENCE)
    assert not Notebook(tmp_path / "krita-jobs.json").jobs(daemon.url)


def test_what_nobody_remembers_is_stopped(tmp_path: Path) -> None:
    """A job that was cancelled just before Krita died is cancelled and acknowledged by the next one, without a word."""
    heard: list[Any] = []

    def talk(peer: Peer) -> None:
        session = peer.receive(m.Resume).session
        peer.send(m.Resumed(session, ("unwanted",)), m.Accepted("unwanted", 0), m.Started("unwanted", 1))
        heard.append(peer.receive(m.Cancel))
        peer.send(m.Cancelled("unwanted"))
        heard.append(peer.receive(m.Acknowledge))
        peer.wait()

    notebook = Notebook()
    client = Client(notebook=notebook)
    with serving(talk) as server:
        notebook.begin(server, "1" * 32)
        client.welcomed(server)
        eventually(lambda: len(heard) == 2)
        client.network.close(PATIENCE)
        client.collect()
    assert [type(event) for event in client.events] == [m.Welcome]


def _closing(code: int) -> Callable[[Peer], None]:
    def talk(peer: Peer) -> None:
        peer.accept_job()
        peer.connection.close(code)

    return talk


@pytest.mark.parametrize(
    ("code", "error"), [(4001, "resumed_elsewhere"), (4003, "unauthorized")], ids=["resumed elsewhere", "revoked"]
)
def test_some_ends_are_ends(client: Client, code: int, error: str) -> None:
    """Where another attempt would do harm, or could not succeed, there is none."""
    with serving(_closing(code)) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        assert client.until(Disconnected).error.code == error
    assert not client.seen(Reconnecting)


@pytest.mark.parametrize(("code", "error"), [(1012, "shutting_down"), (4002, "disconnected"), (1011, "disconnected")])
def test_other_ends_are_not(client: Client, code: int, error: str) -> None:
    """The job is taken up again."""

    def resumed(peer: Peer) -> None:
        session = peer.receive(m.Resume).session
        peer.send(m.Resumed(session, (JOB.id,)), m.Done(JOB.id, 1.0))
        peer.wait()

    with serving(_closing(code), resumed) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Done)
    assert [event.error.code for event in client.seen(Reconnecting)] == [error]


def test_a_daemon_that_is_being_stopped_is_asked_again(client: Client) -> None:
    """It answers the handshake with 503 and its reason."""
    answers = [describe("shutting_down")]

    def refuse(websocket: ServerConnection, request: Any) -> Any:
        if not answers:
            return None
        body = answers.pop().to_wire()
        return websocket.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, json.dumps(body))

    with serving(Peer.accept_job, process_request=refuse) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Started)


def test_a_daemon_that_forgot_everything_gets_the_job_again(client: Client) -> None:
    """The session is unknown, a new one begins, and the pixels travel once more."""
    jobs = []

    def forgetful(peer: Peer) -> None:
        peer.receive(m.Resume)
        peer.send(m.Error(describe("unknown_session")))
        jobs.append(peer.accept_job())
        peer.send(m.Done(jobs[0], 1.0))
        peer.wait()

    with serving(_closing(1011), forgetful) as server:
        client.network.connect(server, "token")
        client.network.submit(JOB)
        client.until(m.Done)
    assert jobs == [JOB.id]


def test_a_silent_server_is_left(client: Client, monkeypatch: pytest.MonkeyPatch, daemon: Launched) -> None:
    """One that answers no ping is gone, though nobody said so."""
    monkeypatch.setattr(connection, "SILENCE", 0.2)
    proxy = Proxy(daemon.url)
    client.welcomed(proxy.url, daemon.token)
    time.sleep(1.0)
    client.collect()
    assert not client.seen(Reconnecting)  # While it answers, silence is no harm.
    client.network.submit(job("held", steps=LIFE))
    client.until(m.Progress, is_denoising)
    proxy.hold()
    client.until(Reconnecting)
    proxy.close()
    client.network.cancel("held")


def test_a_server_that_does_not_read_is_left(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even while the thread is in the middle of sending to it."""
    monkeypatch.setattr(connection, "SILENCE", 0.3)
    with deaf() as server:
        client.network.connect(server, "token")
        client.network.submit(large_job())
        client.until(Reconnecting)
        client.network.cancel("large")
        client.network.close(PATIENCE)


def test_the_thread_sleeps_when_there_is_nothing_to_do(client: Client, daemon: Launched) -> None:
    """Connected or not, it takes next to no time of the processor."""
    proxy = Proxy(daemon.url)
    client.welcomed(proxy.url, daemon.token)
    connected = _seconds_of_the_thread(client, 1.0)
    client.network.submit(Job("waits", REQUEST))
    proxy.open = False
    proxy.cut()
    client.until(Reconnecting, lambda event: event.seconds > 1)
    apart = _seconds_of_the_thread(client, 1.0)
    proxy.close()
    assert connected < 0.02
    assert apart < 0.1


def _seconds_of_the_thread(client: Client, seconds: float) -> float:
    """What the network thread computes while so many seconds pass."""
    clock = time.pthread_getcpuclockid(client.network._thread.ident)  # type: ignore[arg-type]
    before = time.clock_gettime(clock)
    time.sleep(seconds)
    return time.clock_gettime(clock) - before
