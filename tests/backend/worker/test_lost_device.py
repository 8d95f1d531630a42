"""A device that is lost: its driver refuses everything until the process is a new one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from underpaint_backend.engine.device import open_device
from underpaint_backend.worker import worker as module
from underpaint_backend.worker.inbox import Job
from underpaint_backend.worker.interface import read_message
from underpaint_backend.worker.outbox import Outbox
from underpaint_protocol.messages import Failed, Request, Submit

from tests.backend.engine.tiny import build_tiny


def test_the_job_ends_and_the_worker_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artist hears what happened before the worker goes away to be started anew."""

    def broken(*arguments: Any) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    build_tiny(tmp_path / "tiny", 9)
    monkeypatch.setattr(module, "paint", broken)
    sent = io.BytesIO()
    worker = module.Worker(open_device("cpu"), [tmp_path], Outbox(sent))
    with pytest.raises(torch.AcceleratorError):
        worker.run(Job(Submit("job", Request("tiny", "text_to_image", 64, 64, prompt="red")), {}))
    sent.seek(0)
    messages = []
    while (message := read_message(sent)) is not None:
        messages.append(message)
    assert isinstance(messages[-1], Failed)
    assert (messages[-1].error.code, messages[-1].error.retryable) == ("worker_died", True)
