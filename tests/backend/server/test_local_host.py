"""What only the local host does: it starts processes, and they can refuse to start."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from underpaint_backend.models.catalog import DESCRIPTION, default_roots
from underpaint_backend.models.fitness import Room
from underpaint_backend.models.folder_list import add_folder
from underpaint_backend.server.hosts import local
from underpaint_backend.server.hosts.local import MAX_FAILED_STARTS, LocalHost, LocalOptions
from underpaint_backend.server.hosts.shelf import room_for_weights
from underpaint_backend.server.pulls import FetchFailed
from underpaint_backend.worker.interface import Memory
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import TERMINAL, Cancelled, Done, Failed, Request, Result, Submit, Tile, Worker
from underpaint_protocol.tiles import name_of

from tests.backend.server.host_jobs import one_by_one, run

JOB = Submit("job", Request("primer-inpaint", "text_to_image", 64, 64, steps=1))
LONG = Submit("long", Request("primer-inpaint", "text_to_image", 64, 64, steps=500))

shares_the_host = pytest.mark.asyncio(loop_scope="module")


async def test_a_worker_that_never_starts_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After some failed starts the host says so, and jobs fail with the reason instead of waiting for ever."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    host = LocalHost(LocalOptions())
    states: list[Worker] = []
    await host.start(states.append)
    (end,) = [message async for message in host.run(JOB, [])]
    await host.close()
    assert isinstance(end, Failed)
    assert end.error.code == "worker_unavailable"
    assert "exit code 7" in end.error.message
    assert [worker.state for worker in states] == ["restarting"] * (MAX_FAILED_STARTS - 1) + ["failed"]


async def test_a_device_that_is_not_there_is_said_at_once() -> None:
    """No second worker tries what cannot succeed; jobs fail with what there is."""
    host = LocalHost(LocalOptions(device="toaster"))
    assert (await host.try_out()).startswith("there is no device “toaster” here. There is: cpu")
    states: list[Worker] = []
    await host.start(states.append)
    (end,) = [message async for message in host.run(JOB, one_by_one([]))]
    await host.close()
    assert isinstance(end, Failed)
    assert end.error.code == "worker_unavailable"
    assert "There is: cpu" in end.error.message
    assert [worker.state for worker in states] == ["failed"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared host looks for models, too."""
    return tmp_path_factory.mktemp("models")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_host(folder: Path) -> AsyncIterator[LocalHost]:
    """A host that has had a worker and will have another, whatever a test does to the one of now."""
    running = LocalHost(LocalOptions(device="cpu", threads=1, model_roots=(folder,)))
    await running.start(lambda worker: None)
    yield running
    await running.close()


@pytest_asyncio.fixture(loop_scope="module")
async def host(shared_host: LocalHost) -> LocalHost:
    """The host, whose worker has done a job."""
    assert isinstance((await run(shared_host, JOB))[-1], Done)
    return shared_host


@shares_the_host
async def test_a_worker_that_dies_in_the_middle_of_the_pixels_costs_one_attempt(host: LocalHost) -> None:
    """The job fails with the reason, the next worker hears nothing of it, and the same job is done by that one."""
    tiles, sent = many_tiles(), asyncio.Event()

    async def pixels() -> AsyncIterator[Tile]:
        for number, tile in enumerate(tiles):
            if number == len(tiles) // 2:
                os.kill(worker_of(host), signal.SIGKILL)
                sent.set()
            yield tile

    messages = [message async for message in host.run(JOB, pixels())]
    assert sent.is_set()
    [end] = messages
    assert isinstance(end, Failed)
    assert end.error.code == "worker_died"
    again = await run(host, JOB, tiles)
    assert [type(message) for message in again if isinstance(message, TERMINAL)] == [Done]
    assert isinstance(again[-1], Done)
    named = {name for message in again if isinstance(message, Result) for name in message.image.tiles}
    assert {message.name for message in again if isinstance(message, Tile)} == named


@shares_the_host
@pytest.mark.parametrize("begun", [True, False], ids=["while it paints", "while the pixels travel"])
async def test_a_worker_that_hangs_after_a_cancel_is_killed(
    host: LocalHost, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """It has some time to end the job; the next job is done by another worker."""
    monkeypatch.setattr(local, "CANCEL_PATIENCE", 0.3)
    first, heard = worker_of(host), asyncio.Event()
    if not begun:
        os.kill(first, signal.SIGSTOP)

    async def follow() -> list[Record]:
        messages = []
        async for message in host.run(LONG, one_by_one([] if begun else many_tiles())):
            messages.append(message)
            heard.set()
        return messages

    running = asyncio.create_task(follow())
    if begun:
        await heard.wait()
        os.kill(first, signal.SIGSTOP)
    else:
        await asyncio.sleep(0.2)
    host.cancel("long")
    async with asyncio.timeout(10):
        end = (await running)[-1]
    assert isinstance(end, Failed | Cancelled)
    assert isinstance((await run(host, JOB))[-1], Done)
    assert worker_of(host) != first


@shares_the_host
async def test_a_worker_that_hangs_and_is_left_is_killed(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops following a job does not wait for a worker that does not answer."""
    monkeypatch.setattr(local, "GRACE", 0.3)
    messages = host.run(LONG, one_by_one([]))
    await anext(messages)
    first = worker_of(host)
    os.kill(first, signal.SIGSTOP)
    async with asyncio.timeout(10):
        await messages.aclose()
    assert isinstance((await run(host, JOB))[-1], Done)
    assert worker_of(host) != first


async def test_models_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    """A folder that appears is in the list after the next look, and out of it when it is gone."""
    running = LocalHost(LocalOptions(device="cpu", threads=1, model_roots=(tmp_path,)))
    before = running.models()
    folder = described(tmp_path / "mine", id="mine")
    assert running.models() == before
    await running.refresh()
    assert [model.id for model in running.models() if model not in before] == ["mine"]
    shutil.rmtree(folder)
    await running.refresh()
    assert running.models() == before


@shares_the_host
async def test_what_does_not_fit_is_known_when_the_worker_is_there(host: LocalHost, folder: Path) -> None:
    """A model that needs more memory than there is becomes unfit, and says why; the others stay as they are."""
    huge = described(folder / "huge", id="huge", memory=1 << 49)
    apart = LocalHost(LocalOptions(model_roots=(folder,)))
    await apart.refresh()
    await host.refresh()
    shutil.rmtree(huge)
    assert {model.state for model in apart.models() if model.id == "huge"} == {"ready"}
    models = {model.id: model for model in host.models()}
    assert models["huge"].state == "unfit"
    assert "GiB" in models["huge"].detail
    assert models["primer-inpaint"].state == "ready"


@pytest.mark.parametrize(
    ("endpoint", "model", "code"),
    [("https://huggingface.co", "nothing", "unknown_model"), ("http://somewhere.else", "sd15", "download_failed")],
)
def test_what_cannot_be_fetched_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endpoint: str, model: str, code: str
) -> None:
    """A model that nobody offers, and an address of the hub that would send the token in the clear."""
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    host = LocalHost(LocalOptions())
    with pytest.raises(FetchFailed) as refusal:
        host.fetch(model, lambda progress: None, threading.Event())
    assert refusal.value.error.code == code


async def test_what_is_damaged_is_written_into_the_log_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However often the folders are looked at; another fault is told, too."""
    monkeypatch.setattr(sys, "executable", "/bin/true")
    folder = described(tmp_path / "mine", id="mine")
    host = LocalHost(LocalOptions(model_roots=(tmp_path,)))
    await host.start(lambda worker: None)
    for content in ("{", "{", "[]", "[]"):
        (folder / DESCRIPTION).write_text(content)
        await host.refresh()
    await host.close()
    told = [record.getMessage() for record in caplog.records if str(folder) in record.getMessage()]
    assert len(told) == len(set(told)) == 2


async def test_a_folder_that_is_gone_is_written_into_the_log_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that was taken out is not told of every five seconds."""
    monkeypatch.setattr(sys, "executable", "/bin/true")
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "disk"
    folder.mkdir()
    add_folder(folder)
    folder.rmdir()
    host = LocalHost(LocalOptions())
    await host.start(lambda worker: None)
    for _ in range(3):
        await host.refresh()
    await host.close()
    assert len([record for record in caplog.records if str(folder) in record.getMessage()]) == 1


def test_weights_may_wait_in_ram() -> None:
    """What a graphics card lacks is no reason to call a model unfit, if the machine has it; of a CPU there is one."""
    card = Memory(1 << 30, 2 << 30)
    assert room_for_weights("cpu, 4 threads", card) == Room(1 << 30, 2 << 30, on_cpu=True)
    beside = room_for_weights("cuda:0 NVIDIA L4", card)
    assert beside is not None
    assert (beside.free, beside.total, beside.on_cpu) == (1 << 30, 2 << 30, False)
    assert 0 < beside.ram_free <= beside.ram_total
    assert room_for_weights("cuda:0 NVIDIA L4", None) is None


@pytest.mark.parametrize(
    ("options", "state"),
    [
        (LocalOptions(), "unfit"),
        (LocalOptions(offload="group"), "ready"),
        (LocalOptions(precision="nf4"), "ready"),
        (LocalOptions(precision="nf4", offload="none", memory_gib=1), "unfit"),
    ],
    ids=repr,
)
async def test_the_list_heeds_what_was_chosen_about_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: LocalOptions, state: str
) -> None:
    """A model of 4 GiB in bf16 on a machine of 1.5 GiB fits, or does not, by precision, offload and limit."""
    described(tmp_path / "mine", id="mine", memory=4 << 30)
    host = LocalHost(replace(options, model_roots=(tmp_path,)))
    host._room = Room(1 << 30, 3 << 29, on_cpu=True)
    await host.refresh()
    assert {model.id: model.state for model in host.models()}["mine"] == state


def described(folder: Path, **changes: object) -> Path:
    """A folder that says it holds a model."""
    primer = default_roots()[0] / "primer_inpaint"
    folder.mkdir()
    shutil.copy(primer / "model_index.json", folder)
    wire = {**json.loads((primer / DESCRIPTION).read_text()), **changes}
    (folder / DESCRIPTION).write_text(json.dumps(wire))
    return folder


def many_tiles() -> list[Tile]:
    """More pixels than fit into a pipe and what is buffered before it."""
    contents = [bytes([number]) * (256 << 10) for number in range(32)]
    return [Tile(name_of(data), len(data), data) for data in contents]


def worker_of(host: LocalHost) -> int:
    """The worker's process."""
    assert host._process is not None
    return host._process.pid
