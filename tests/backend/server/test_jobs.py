"""Jobs through a real daemon and a real worker with the built-in model."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from underpaint_backend.launch import Launched, launch
from underpaint_protocol.client import Picture
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import (
    Accepted,
    Acknowledge,
    Cancel,
    Cancelled,
    Done,
    Error,
    Failed,
    Fetch,
    Have,
    Missing,
    Position,
    Preview,
    Progress,
    Resume,
    Resumed,
    Started,
    Status,
    Submit,
    vocabulary,
)
from websockets.exceptions import ConnectionClosed

from tests.backend.server.calling import INPAINT, LONG, SELECTION, SHORT, SIDE, Caller, ask, greeted, worker_of
from tests.backend.server.journals import jobs_in

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker through Linux's /proc")


def names(events: list[object]) -> list[str]:
    return [type(event).__name__ for event in events]


async def test_a_job_goes_from_accepted_to_done(daemon: Launched) -> None:
    """A job is accepted, started, tells its progress, shows previews, brings its picture, and is done."""
    async with Caller(daemon) as caller:
        caller.submit("a", INPAINT)
        assert isinstance(await caller.end_of("a"), Done)
    events = caller.of("a")
    assert names(events)[:2] == ["Accepted", "Started"]
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert len([event for event in events if isinstance(event, Preview)]) >= 3
    (picture,) = [event for event in events if isinstance(event, Picture)]
    assert (picture.width, picture.height) == (SIDE, SIDE)
    assert picture.pixels[3::4] == SELECTION


async def test_a_batch_brings_each_picture_with_its_seed(daemon: Launched) -> None:
    """Two pictures come with two seeds and are not the same."""
    async with Caller(daemon) as caller:
        caller.submit("a", replace(INPAINT, batch=2, seed=5))
        await caller.end_of("a")
    pictures = [event for event in caller.events if isinstance(event, Picture)]
    assert [(picture.index, picture.seed) for picture in pictures] == [(0, 5), (1, 6)]
    assert pictures[0].pixels != pictures[1].pixels


async def test_a_running_job_is_cancelled_at_once(daemon: Launched) -> None:
    """Cancel ends a job inside its steps with `cancelled`."""
    async with Caller(daemon) as caller:
        caller.submit("long", LONG)
        await caller.denoising("long")
        began = time.monotonic()
        caller.core.cancel("long")
        assert isinstance(await caller.end_of("long"), Cancelled)
        assert time.monotonic() - began < 2


async def test_a_waiting_job_is_told_its_place_and_can_be_taken_back(daemon: Launched) -> None:
    """A job behind others hears when it comes nearer, and a cancel ends it without a start."""
    async with Caller(daemon) as caller:
        for job in ("first", "second", "third"):
            caller.submit(job, LONG)
        await caller.denoising("first")
        accepted = await caller.until(lambda event: isinstance(event, Accepted) and event.job == "third")
        caller.core.cancel("second")
        moved = await caller.until(lambda event: isinstance(event, Position) and event.job == "third")
        assert (accepted.position, moved.position) == (2, 1)  # type: ignore[union-attr]
        caller.core.cancel("third")
        caller.core.cancel("first")
        for job in ("first", "second", "third"):
            assert isinstance(await caller.end_of(job), Cancelled)
        assert names(caller.of("second")) == ["Accepted", "Cancelled"]


async def test_a_foreign_job_and_an_unknown_one_get_the_same_answer(daemon: Launched) -> None:
    """Nobody sees, cancels or fetches what is somebody else's, with the same token neither."""
    async with Caller(daemon) as mine:
        mine.submit("job", LONG)
        await mine.denoising("job")
        theirs, _ = await greeted(daemon)
        for message in (Cancel("job"), Cancel("never"), Fetch("job", ()), Fetch("never", ())):
            answer = await ask(theirs, message)
            assert answer == Error(describe("unknown_job"), message.job)
        await theirs.close()
        mine.core.cancel("job")
        await mine.end_of("job")
    assert names(mine.of("job"))[:3] == ["Accepted", "Started", "Progress"]


async def test_the_same_job_twice_is_one_job(daemon: Launched) -> None:
    """A submit that is repeated is passed over; with another request it is refused, and the first goes on."""
    async with Caller(daemon) as caller:
        caller.submit("job", LONG)
        await caller.denoising("job")
        await caller.socket.send(vocabulary.encode(Submit("job", LONG)))
        await caller.socket.send(vocabulary.encode(Submit("job", SHORT)))
        error = await caller.until(lambda event: isinstance(event, Error))
        assert isinstance(error, Error)
        assert error.error.code == "duplicate_job"
        caller.core.cancel("job")
        await caller.until(lambda event: isinstance(event, Cancelled))
    assert names(caller.events).count("Accepted") == 1


async def test_a_newer_job_takes_the_place_of_an_older_one(daemon: Launched) -> None:
    """What is superseded is cancelled, inside a step too, once the newer job is accepted."""
    async with Caller(daemon) as caller:
        caller.submit("old", LONG)
        await caller.denoising("old")
        caller.submit("new", SHORT, supersedes="old")
        assert isinstance(await caller.end_of("old"), Cancelled)
        assert isinstance(await caller.end_of("new"), Done)


async def test_only_the_tiles_that_the_daemon_lacks_travel(daemon: Launched) -> None:
    """The second job on the same canvas sends no pixels at all."""
    async with Caller(daemon) as caller:
        caller.submit("first", INPAINT)
        await caller.end_of("first")
        caller.submit("second", INPAINT)
        sent = 0
        await caller.send()
        while "second" not in [getattr(event, "job", None) for event in caller.events]:
            caller.events += caller.core.receive(await caller.socket.recv(decode=False))
            while (frame := caller.core.next_frame()) is not None:
                sent += len(frame)
                await caller.socket.send(frame)
        assert sent < 1000
        assert isinstance(await caller.end_of("second"), Done)


async def test_a_job_goes_on_while_its_client_is_away(daemon: Launched) -> None:
    """A connection that is cut in the middle costs nothing: what was missed is told, once, and the picture comes."""
    caller = Caller(daemon)
    await caller.connect()
    caller.submit("a", replace(INPAINT, steps=30))
    await caller.denoising("a")
    caller.cut()
    await asyncio.sleep(0.5)
    async with caller:
        assert isinstance(await caller.end_of("a"), Done)
    steps = [event.step for event in caller.of("a") if isinstance(event, Progress) and event.phase == "denoising"]
    assert steps == list(range(31))
    assert names(caller.of("a")).count("Picture") == 1


async def test_a_client_that_was_killed_finds_its_picture(daemon: Launched) -> None:
    """With the id of its session alone, a new program gets all that the old one did not acknowledge."""
    caller = Caller(daemon)
    await caller.connect()
    caller.submit("a", INPAINT)
    await caller.until(lambda event: isinstance(event, Accepted))
    caller.cut()
    async with Caller(daemon, session=caller.core.session) as heir:
        assert heir.core.open == ("a",)
        assert isinstance(await heir.end_of("a"), Done)
        assert names(heir.of("a")).count("Picture") == 1
        heir.core.acknowledge("a")
        await heir.send()
    async with Caller(daemon, session=caller.core.session) as late:
        assert late.core.open == ()


async def test_a_session_that_is_resumed_elsewhere_moves_there(daemon: Launched) -> None:
    """The older connection is closed and told why; the newer one hears everything."""
    async with Caller(daemon) as first:
        first.submit("a", LONG)
        await first.denoising("a")
        async with Caller(daemon, session=first.core.session) as second:
            with pytest.raises(ConnectionClosed) as closed:
                await first.end_of("a")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4001
            second.core.cancel("a")
            assert isinstance(await second.end_of("a"), Cancelled)


async def test_what_comes_late_on_the_older_connection_is_not_heard(daemon: Launched) -> None:
    """A `submit` that a network held back does not begin a job anew that was acknowledged on the newer connection."""
    (older, welcome), (newer, _) = await greeted(daemon), await greeted(daemon)
    assert isinstance(await ask(older, Submit("a", LONG)), Accepted)
    older.transport.pause_reading()  # so that it does not hear that it is closed, which the daemon waits a second for
    assert await ask(newer, Resume(welcome.session, 0)) == Resumed(welcome.session, ("a",))
    await newer.send(vocabulary.encode(Cancel("a")))
    while not isinstance(vocabulary.decode(await newer.recv(decode=False)), Cancelled):
        pass
    await newer.send(vocabulary.encode(Acknowledge("a")))
    assert await ask(newer, Have(1, ())) == Missing((), 1)  # so the daemon has read what came before
    await older.send(vocabulary.encode(Submit("a", LONG)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(newer.recv(), 0.5)
    older.transport.abort()
    await newer.close()


async def test_resuming_what_is_not_ones_own_is_refused(daemon: Launched) -> None:
    """A session that never was is unknown, and the fresh one goes on; after the first job it is too late."""
    socket, welcome = await greeted(daemon)
    answer = await ask(socket, Resume("f" * 32, 0))
    assert answer == Error(describe("unknown_session"))
    assert isinstance(await ask(socket, Submit("a", SHORT)), Accepted)
    late = await ask(socket, Resume(welcome.session, 0))
    while not isinstance(late, Error):
        late = vocabulary.decode(await socket.recv(decode=False))
    assert late.error.code == "out_of_order"
    await socket.close()


@needs_proc
async def test_a_killed_worker_costs_a_job_one_attempt(own_daemon: Launched) -> None:
    """The job begins again and is done; when the second worker dies too, it fails with the reason; others go on."""
    async with Caller(own_daemon) as caller:
        caller.submit("lucky", replace(LONG, steps=60))
        await caller.denoising("lucky")
        os.kill(worker_of(own_daemon), signal.SIGKILL)
        assert isinstance(await caller.end_of("lucky"), Done)
        assert [event.attempt for event in caller.of("lucky") if isinstance(event, Started)] == [1, 2]
        caller.submit("doomed", LONG)
        await caller.denoising("doomed")
        os.kill(worker_of(own_daemon), signal.SIGKILL)
        await caller.until(lambda event: isinstance(event, Started) and (event.job, event.attempt) == ("doomed", 2))
        caller.events.clear()
        await caller.denoising("doomed")
        os.kill(worker_of(own_daemon), signal.SIGKILL)
        end = await caller.end_of("doomed")
        assert isinstance(end, Failed)
        assert (end.error.code, end.error.retryable) == ("worker_died", True)
        caller.submit("next", SHORT)
        assert isinstance(await caller.end_of("next"), Done)


async def test_a_killed_daemon_goes_on_where_it_was(own_daemon: Launched) -> None:
    """What ran begins again, what waited still waits, what was finished is delivered."""
    caller = Caller(own_daemon)
    await caller.connect()
    caller.submit("finished", INPAINT)
    await caller.until(lambda event: isinstance(event, Progress) and event.job == "finished")
    caller.cut()
    while not jobs_in(own_daemon.home)["finished"][1]:
        await asyncio.sleep(0.02)
    await caller.connect()
    caller.submit("running", replace(LONG, steps=60))
    caller.submit("waiting", SHORT)
    await caller.denoising("running")
    own_daemon.process.kill()
    own_daemon.process.wait()
    caller.cut()
    again = launch(own_daemon.home, "--threads", "1")
    try:
        caller.daemon = again
        async with caller:
            for job in ("finished", "running", "waiting"):
                assert isinstance(await caller.end_of(job), Done)
                assert names(caller.of(job)).count("Picture") == 1
            attempts = [event.attempt for event in caller.of("running") if isinstance(event, Started)]
            assert attempts == [1, 2]
    finally:
        again.stop()


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_no_process_is_left_behind(own_daemon: Launched, number: signal.Signals) -> None:
    """However the daemon ends, in the middle of a job too, its worker ends with it."""
    caller = Caller(own_daemon)
    await caller.connect()
    caller.submit("job", LONG)
    await caller.denoising("job")
    worker = worker_of(own_daemon)
    own_daemon.process.send_signal(number)
    await asyncio.sleep(0.2)
    code = own_daemon.stop()  # a second signal does not wait for the job
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


async def test_a_daemon_that_is_stopped_lets_its_job_end(own_daemon: Launched) -> None:
    """SIGTERM drains: clients are told, what runs is finished, what waits goes on at the next start."""
    caller = Caller(own_daemon)
    await caller.connect()
    caller.submit("running", replace(LONG, steps=15))
    caller.submit("waiting", SHORT)
    await caller.denoising("running")
    own_daemon.process.send_signal(signal.SIGTERM)
    await caller.until(lambda event: isinstance(event, Status) and event.draining)
    assert isinstance(await caller.end_of("running"), Done)
    with pytest.raises(ConnectionClosed) as closed:
        await caller.end_of("waiting")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert own_daemon.stop() == 0
    again = launch(own_daemon.home, "--threads", "1")
    try:
        caller.daemon = again
        async with caller:
            assert isinstance(await caller.end_of("waiting"), Done)
    finally:
        again.stop()
