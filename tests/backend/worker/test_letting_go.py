"""What a cancelled job had in hand: gigabytes of half a model, which the system takes a while to take back."""

from __future__ import annotations

import io
import weakref
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from underpaint_backend.engine.cancel import Cancelled as CancelledInside
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library
from underpaint_backend.worker.inbox import Job
from underpaint_backend.worker.outbox import Outbox
from underpaint_backend.worker.worker import Worker
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Cancelled, Request, Submit

from tests.backend.engine.tiny import build_tiny


def test_the_end_is_told_before_half_a_model_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for memory that is given back; but given back it is."""
    read: list[weakref.ref[nn.Module]] = []
    still_there: list[bool] = []

    def load(*arguments: Any) -> None:
        half = nn.Linear(1, 1)
        read.append(weakref.ref(half))
        raise CancelledInside

    class Watched(Outbox):
        def send(self, message: Record) -> None:
            if isinstance(message, Cancelled):
                still_there.append(read[0]() is not None)
            super().send(message)

    build_tiny(tmp_path / "tiny", 9)
    monkeypatch.setattr(Library, "load", load)
    worker = Worker(open_device("cpu"), [tmp_path], Watched(io.BytesIO()))
    worker.run(Job(Submit("job", Request("tiny", "text_to_image", 64, 64, prompt="red")), {}))
    assert still_there == [True]
    assert read[0]() is None
