"""Jobs through the network thread, with servers that say what a test tells them."""

from __future__ import annotations

import threading
import time
from typing import Any

from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita._vendor.underpaint_protocol.errors import describe
from underpaint_krita.events import Disconnected, Finished, Job, Place

from .wire import JOB, LARGE_TILES, PATIENCE, REQUEST, Client, Peer, eventually, large_job, serving

wait = Peer.wait


def cancel_what_began(client: Client, server: str) -> None:
    """Submit a job and cancel it once it is painted."""
    client.network.connect(server, "token")
    client.network.submit(JOB)
    client.until(m.Started)
    client.network.cancel(JOB.id)


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
        cancel_what_began(client, server)
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
        cancel_what_began(client, server)
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


def test_a_job_without_a_connection_ends_at_once(client: Client) -> None:
    """As one whose connection was lost."""
    client.network.submit(JOB)
    assert client.until(Disconnected).error.code == "disconnected"
