"""Memory that runs out beside the painting: a job does what it can before it gives up."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from underpaint_backend.engine import lora
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.lora_files import read_lora
from underpaint_backend.worker.inbox import Job
from underpaint_backend.worker.interface import read_message
from underpaint_backend.worker.outbox import Outbox
from underpaint_backend.worker.worker import Worker
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Adapter, Done, Failed, Request, Submit

from tests.backend.engine.starving import Starved
from tests.backend.engine.tiny import build_tiny
from tests.backend.worker.test_tasks import write_lora

INKED = Request("plain", "text_to_image", 48, 64, prompt="blue", steps=1, loras=(Adapter("ink"), Adapter("wash")))


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker in this process, with two models and two LoRAs."""
    for name, channels in (("plain", 4), ("fills", 9)):
        build_tiny(tmp_path / "models" / name, channels)
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "loras").mkdir(parents=True)
    for name in ("ink", "wash"):
        write_lora(tmp_path / "home" / "loras" / f"{name}.safetensors", width=32)
    return Worker(open_device("cpu"), [tmp_path / "models"], Outbox(io.BytesIO()))


def end_of(worker: Worker, request: Request) -> Record:
    """How a job ends."""
    sent = io.BytesIO()
    worker._outbox = Outbox(sent)
    worker.run(Job(Submit("job", request, previews=False), {}))
    sent.seek(0)
    last: Record | None = None
    while (message := read_message(sent)) is not None:
        last = message
    assert last is not None
    return last


def test_idle_models_make_room_for_a_lora(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used last is another model, which goes; the job's own stays, and nobody hears of it."""
    for model in ("plain", "fills"):
        assert isinstance(end_of(worker, Request(model, "text_to_image", 48, 64, steps=1)), Done)
    starved = Starved(read_lora, lambda *_: "fills" in worker._library)
    monkeypatch.setattr(lora, "read_lora", starved)
    reads = worker._library.residency.reads

    end = end_of(worker, INKED)

    assert isinstance(end, Done), end
    assert end.notices == ()
    assert starved.failures == 1
    assert worker._library.residency.reads == reads


def test_a_lora_that_never_has_room_ends_the_job(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the job that were read already are not read again and again, and are idle afterwards."""
    starved = Starved(read_lora, lambda path, *_: path.stem == "wash")
    monkeypatch.setattr(lora, "read_lora", starved)

    end = end_of(worker, INKED)

    assert isinstance(end, Failed)
    assert end.error.code == "out_of_memory"
    assert starved.failures < 8
    assert worker._rack.let_go()
