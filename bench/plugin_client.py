"""The plugin's own network thread without Krita: what a job costs through it is what it costs an artist.

Only what the plugin has from Qt is done by Pillow here: turning a preview into pixels for a layer.
"""

from __future__ import annotations

import io
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin_krita"))

from underpaint_krita._vendor.underpaint_protocol.messages import Done, Request, Welcome
from underpaint_krita.events import Finished, Frame, Job
from underpaint_krita.mailbox import Mailbox
from underpaint_krita.network import Network
from underpaint_krita.notebook import Notebook
from underpaint_krita.pixels import Buffer, with_red_and_blue_swapped

PATIENCE = 600.0
"""Seconds until a measurement gives up."""


class PluginClient:
    """Submits jobs and takes what comes back, as the plugin's main thread does."""

    def __init__(self, url: str, token: str) -> None:
        """Connect to a daemon; returns when it has greeted."""
        self._woken = threading.Event()
        self._mailbox: Mailbox[Any, Frame] = Mailbox(self._woken.set)
        self._folder = tempfile.TemporaryDirectory()
        notebook = Notebook(Path(self._folder.name) / "krita-jobs.json")
        self._network = Network(self._mailbox, developed, with_red_and_blue_swapped, notebook)
        self._network.connect(url, token)
        self._until(Welcome)

    def paint(self, name: str, request: Request, pixels: bytes, mask: bytes) -> tuple[Finished, int]:
        """Run a job to its end: its picture, and how many previews were collected.

        `pixels` are blue, green, red, alpha. Raises `RuntimeError` if the job does not end with `Done`.
        """
        self._network.submit(Job(name, request, pixels, mask))
        events, frames = self._until(Done)
        self._network.acknowledge(name)
        return next(event for event in events if isinstance(event, Finished)), frames

    def close(self) -> None:
        """Disconnect."""
        self._network.close(PATIENCE)
        self._folder.cleanup()

    def _until(self, kind: type[Any]) -> tuple[list[Any], int]:
        """Everything that comes until an event of this type has, and the number of previews among it."""
        seen: list[Any] = []
        frames = 0
        while not any(isinstance(event, kind) for event in seen):
            if not self._woken.wait(PATIENCE):
                raise RuntimeError(f"no {kind.__name__} came")
            self._woken.clear()
            events, frame = self._mailbox.collect()
            seen += events
            frames += frame is not None
            failures = [event for event in events if hasattr(event, "error")]
            if failures:
                raise RuntimeError(failures[0].error.message)
        return seen, frames


def developed(jpeg: bytes, width: int, height: int, mask: Buffer | None) -> bytes:
    """A preview as pixels of blue, green, red, alpha, as large as the request."""
    picture = Image.open(io.BytesIO(jpeg), formats=["JPEG"]).resize((width, height), Image.Resampling.BILINEAR)
    picture.putalpha(255 if mask is None else Image.frombytes("L", (width, height), bytes(mask)))
    return picture.tobytes("raw", "BGRA")
