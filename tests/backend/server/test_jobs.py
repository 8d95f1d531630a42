"""Jobs through a real daemon and a real worker with the built-in model."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from underpaint_backend.client import Client, connect
from underpaint_backend.launch import Launched
from underpaint_protocol.blobs import image_of
from underpaint_protocol.client import Event, Picture
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import (
    TERMINAL,
    Accepted,
    Cancelled,
    Done,
    Error,
    Failed,
    Preview,
    Progress,
    Request,
)

SIDE = 96
GRAY = bytes([128, 128, 128, 255]) * (SIDE * SIDE)
MASK = b"".join(bytes([255 if 16 <= x < 80 and 16 <= y < 80 else 0 for x in range(SIDE)]) for y in range(SIDE))
INPAINT = Request(
    model="primer-inpaint",
    task="inpaint",
    width=SIDE,
    height=SIDE,
    prompt="a red circle",
    steps=6,
    image=image_of(SIDE, SIDE, 4, GRAY),
    mask=image_of(SIDE, SIDE, 1, MASK),
)
LONG = Request(model="primer-inpaint", task="text_to_image", width=SIDE, height=SIDE, prompt="blue", steps=500)


async def events_of(client: Client, request: Request, job: str | None = None) -> list[Event]:
    blobs = [GRAY, MASK] if request.image else []
    return [event async for event in client.generate(request, blobs, job=job)]


async def until_denoising(client: Client, job: str, started: asyncio.Event) -> Event:
    """Run the long job; sets `started` once it denoises and returns its end."""
    last: Event | None = None
    async for event in client.generate(LONG, job=job):
        if isinstance(event, Progress) and event.phase == "denoising":
            started.set()
        last = event
    assert last is not None
    return last


async def test_a_job_goes_from_accepted_to_done(daemon: Launched) -> None:
    """A job is accepted, tells its progress, shows previews, brings its picture, and is done."""
    async with connect(daemon.url, daemon.token) as client:
        events = await events_of(client, INPAINT)
    assert isinstance(events[0], Accepted)
    assert isinstance(events[-1], Done)
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert len([event for event in events if isinstance(event, Preview)]) >= 3
    (picture,) = [event for event in events if isinstance(event, Picture)]
    assert (picture.width, picture.height) == (SIDE, SIDE)
    assert picture.pixels[3::4] == MASK


async def test_a_batch_brings_each_picture_with_its_seed(daemon: Launched) -> None:
    """Two pictures come with two seeds and are not the same."""
    async with connect(daemon.url, daemon.token) as client:
        events = await events_of(client, Request(**{**vars(INPAINT), "batch": 2, "seed": 5}))
    pictures = [event for event in events if isinstance(event, Picture)]
    assert [(picture.index, picture.seed) for picture in pictures] == [(0, 5), (1, 6)]
    assert pictures[0].pixels != pictures[1].pixels


async def test_an_empty_prompt_is_allowed(daemon: Launched) -> None:
    """Inpainting without a word is a job like others."""
    async with connect(daemon.url, daemon.token) as client:
        events = await events_of(client, Request(**{**vars(INPAINT), "prompt": "", "steps": 2}))
    assert isinstance(events[-1], Done)


async def test_a_running_job_is_cancelled_at_once(daemon: Launched) -> None:
    """Cancel ends a job inside its steps with `cancelled`."""
    async with connect(daemon.url, daemon.token) as client:
        started = asyncio.Event()
        running = asyncio.create_task(until_denoising(client, "long", started))
        await started.wait()
        began = time.monotonic()
        await client.cancel("long")
        assert isinstance(await running, Cancelled)
        assert time.monotonic() - began < 2


async def test_a_waiting_job_is_cancelled_without_running(daemon: Launched) -> None:
    """A job behind another one is told its place and can be taken back."""
    async with connect(daemon.url, daemon.token) as client:
        started = asyncio.Event()
        running = asyncio.create_task(until_denoising(client, "first", started))
        await started.wait()
        waiting = asyncio.create_task(events_of(client, LONG, "second"))
        await asyncio.sleep(0.2)
        await client.cancel("second")
        assert await waiting == [Accepted("second", 1), Cancelled("second")]
        await client.cancel("first")
        await running


async def test_nobody_cancels_the_job_of_another(daemon: Launched) -> None:
    """A job of somebody else gets the same answer as one that never was, and goes on."""
    async with connect(daemon.url, daemon.token) as mine, connect(daemon.url, daemon.token) as theirs:
        started = asyncio.Event()
        running = asyncio.create_task(until_denoising(mine, "job", started))
        await started.wait()
        answers = []
        for job in ("job", "never"):
            heard = theirs._jobs[job] = asyncio.Queue()
            await theirs.cancel(job)
            answer = await heard.get()
            assert isinstance(answer, Error)
            answers.append(answer.error)
        assert answers[0] == answers[1] == describe("unknown_job")
        assert not running.done()
        await mine.cancel("job")
        assert isinstance(await running, Cancelled)


async def test_a_cancel_that_comes_too_late_loses_nothing(daemon: Launched) -> None:
    """A cancel that crosses the end of its job leaves the picture and the end as they are."""
    async with connect(daemon.url, daemon.token) as client:
        events: list[Event] = []
        async for event in client.generate(INPAINT, [GRAY, MASK], job="late"):
            events.append(event)
            if isinstance(event, Progress) and event.fraction == 1.0:
                await asyncio.sleep(0.5)
                await client.cancel("late")
        assert isinstance(events[-1], Done)
        assert [event for event in events if isinstance(event, Picture)]


async def test_a_second_job_of_the_same_id_is_refused(daemon: Launched) -> None:
    """While a job runs, its id is taken."""
    async with connect(daemon.url, daemon.token) as client:
        started = asyncio.Event()
        running = asyncio.create_task(until_denoising(client, "job", started))
        await started.wait()
        client._session._jobs.pop("job")  # the library would refuse it before the daemon could
        async for event in client.generate(LONG, job="job"):
            assert isinstance(event, Error)
            assert event.error.code == "duplicate_job"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_client_that_goes_away_frees_the_worker(daemon: Launched) -> None:
    """The jobs of a client that left are cancelled, so that the next one need not wait for them."""
    async with connect(daemon.url, daemon.token) as client:
        started = asyncio.Event()
        running = asyncio.create_task(until_denoising(client, "gone", started))
        await started.wait()
        running.cancel()
    async with asyncio.timeout(60), connect(daemon.url, daemon.token) as client:
        assert isinstance((await events_of(client, INPAINT))[-1], Done)


def worker_of(daemon: Launched) -> int:
    """Process id of the daemon's worker."""
    (child,) = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    return int(child)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker through Linux's /proc")
async def test_a_killed_worker_fails_its_job_and_the_next_one_works(own_daemon: Launched) -> None:
    """The job says what happened, the worker comes back, and the same connection goes on."""
    async with asyncio.timeout(180), connect(own_daemon.url, own_daemon.token) as client:
        started = asyncio.Event()
        running = asyncio.create_task(until_denoising(client, "doomed", started))
        await started.wait()
        os.kill(worker_of(own_daemon), signal.SIGKILL)
        end = await running
        assert isinstance(end, Failed)
        assert (end.error.code, end.error.retryable) == ("worker_died", True)
        assert isinstance((await events_of(client, INPAINT))[-1], Done)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker through Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_no_process_is_left_behind(own_daemon: Launched, number: signal.Signals) -> None:
    """However the daemon ends, in the middle of a job too, its worker ends with it."""
    async with asyncio.timeout(120), connect(own_daemon.url, own_daemon.token) as client:
        started = asyncio.Event()
        running = asyncio.create_task(until_denoising(client, "job", started))
        await started.wait()
        worker = worker_of(own_daemon)
        own_daemon.process.send_signal(number)
        await asyncio.gather(running, return_exceptions=True)
    code = own_daemon.stop()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


async def test_the_daemon_tells_its_clients_before_it_goes(own_daemon: Launched) -> None:
    """A job that runs when the daemon is stopped ends with a sentence, not with a cut line."""
    async with asyncio.timeout(120), connect(own_daemon.url, own_daemon.token) as client:
        started = asyncio.Event()
        running = asyncio.create_task(until_denoising(client, "job", started))
        await started.wait()
        own_daemon.process.send_signal(signal.SIGTERM)
        end = await running
    assert isinstance(end, TERMINAL)
    assert isinstance(end, Failed)
    assert end.error.code == "shutting_down"
