"""Previews on their way out: made into JPEGs by a thread of their own, so that the denoising loop never waits."""

from __future__ import annotations

import io
import logging
import time
from dataclasses import dataclass
from threading import Condition, Thread

import torch
from PIL import Image
from torch import Tensor
from underpaint_protocol.messages import Preview

from .outbox import Outbox

log = logging.getLogger(__name__)

QUALITY = 85
"""JPEG quality. Even pure noise of 64 x 64 pixels, which is 512 px of canvas, then takes less than 4 KB."""


@dataclass(frozen=True)
class _Shown:
    """Pictures [B, h, w, 3] of one step, on the CPU as soon as `copied`, where there is one, has happened."""

    job: str
    step: int
    pictures: Tensor
    predicted_at: float
    copied: torch.cuda.Event | None


class Previews:
    """A slot for the newest pictures of a job, and the thread that sends them. A newer step replaces an older one."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._slot: _Shown | None = None
        self._sending = False
        self._changed = Condition()
        Thread(target=self._run, name="previews", daemon=True).start()

    def show(self, job: str, step: int, pictures: Tensor) -> None:
        """Send pictures [B, h, w, 3], uint8, of this step, unless newer ones come first. Returns at once."""
        copied = None
        if pictures.is_cuda:
            pictures = pictures.to("cpu", non_blocking=True)  # into pinned memory
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record()
        shown = _Shown(job, step, pictures.cpu(), time.time(), copied)
        with self._changed:
            self._slot = shown
            self._changed.notify_all()

    def finish(self) -> None:
        """Drop what waits; after this returns, no preview of the jobs so far is sent any more."""
        with self._changed:
            self._slot = None
            self._changed.wait_for(lambda: not self._sending)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._slot is not None)
                shown, self._slot = self._slot, None
                self._sending = True
            assert shown is not None
            try:
                self._outbox.send(*_messages(shown))
            except Exception:  # a preview is not worth a job
                log.exception("a preview could not be sent")


def _messages(shown: _Shown) -> list[Preview]:
    predicted_at = shown.predicted_at
    if shown.copied is not None:
        shown.copied.synchronize()
        predicted_at = time.time()
    _, height, width, _ = shown.pictures.shape
    return [
        Preview(shown.job, index, shown.step, width, height, jpeg_of(picture), predicted_at)
        for index, picture in enumerate(shown.pictures)
    ]


def jpeg_of(picture: Tensor) -> bytes:
    """A picture [h, w, 3], uint8, as a JPEG."""
    data = io.BytesIO()
    Image.fromarray(picture.numpy()).save(data, "JPEG", quality=QUALITY)
    return data.getvalue()
