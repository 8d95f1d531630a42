"""Downloads that end early: cancelled, without room on the disk, or behind another of the same files."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from underpaint_backend.models.download import MARGIN, Download, Patience
from underpaint_backend.models.exceptions import DownloadCancelled
from underpaint_backend.models.hub import Settings
from underpaint_backend.models.store import Store

from tests.backend.models.downloads import pull, refused, state
from tests.backend.models.hub import StandIn
from tests.backend.models.things import (
    BIG,
    REPOSITORY,
    UNET,
    WANTED,
    download,
    offer,
)


def test_cancelling_in_the_middle(hub: StandIn, tmp_path: Path) -> None:
    """A download of which nothing comes any more stops at once, and goes on from there later."""
    hub.hold_after = 1 << 20
    cancelled = threading.Event()
    ended: list[float] = []

    def run() -> None:
        with pytest.raises(DownloadCancelled):
            pull(download(hub, tmp_path), cancelled)
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    assert hub.held.wait(10)
    time.sleep(0.1)
    asked = time.monotonic()
    cancelled.set()
    thread.join(10)
    assert ended
    assert ended[0] - asked < 0.3
    assert state(tmp_path) == "absent"
    hub.hold_after = None
    hub.asked.clear()
    pull(download(hub, tmp_path))
    assert hub.requests("cdn", "unet")[0].range == f"bytes={1 << 20}-"
    assert state(tmp_path) == "ready"


def test_cancelling_while_it_connects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers at the address says nothing, and TLS never begins: nobody waits for that."""
    monkeypatch.setattr("urllib.request.getproxies", dict)
    cancelled = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        given = Download(offer(), Store(tmp_path), Settings(f"https://127.0.0.1:{silent.getsockname()[1]}"))
        threading.Timer(0.3, cancelled.set).start()
        began = time.monotonic()
        with pytest.raises(DownloadCancelled):
            pull(given, cancelled)
        assert time.monotonic() - began < 3


def test_cancelling_while_waiting_for_a_busy_hub(hub: StandIn, tmp_path: Path) -> None:
    """Patience ends where somebody says stop."""
    hub.answers = [("/api/", 503, {"Retry-After": "60"})]
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    start = time.monotonic()
    with pytest.raises(DownloadCancelled):
        pull(download(hub, tmp_path, patience=Patience(3, 1, 100)), cancelled)
    assert time.monotonic() - start < 5


def test_a_full_disk_is_noticed_before_anything_comes(hub: StandIn, tmp_path: Path) -> None:
    """The error has both numbers."""
    error = refused(download(hub, tmp_path, free=lambda _: MARGIN + 1000))
    assert error.info.code == "disk_full"
    assert "3.2 MB are to come" in error.info.message
    assert not hub.requests("hub", "/resolve/")


def test_what_is_here_already_needs_no_room(hub: StandIn, tmp_path: Path) -> None:
    """Only what is missing has to fit."""
    hub.cuts[UNET] = [BIG - 10, 0, 0, 0]
    refused(download(hub, tmp_path))
    hub.cuts.clear()
    rest = 10 + 20_000 + len(hub.repositories[REPOSITORY].files["model_index.json"])
    assert refused(download(hub, tmp_path, free=lambda _: MARGIN + 5)).info.code == "disk_full"
    pull(download(hub, tmp_path, free=lambda _: MARGIN + rest + 100))


LIMITED = """
import resource, sys, threading
from pathlib import Path
from underpaint_backend.models.exceptions import ModelError
from tests.backend.models.things import download
from tests.backend.models.hub import StandIn
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
hub = StandIn(url=sys.argv[1])
try:
    download(hub, Path(sys.argv[2])).run(lambda progress: None, threading.Event())
except ModelError as error:
    print(error.info.code, error.info.message)
"""


def test_a_disk_that_fills_in_the_middle(hub: StandIn, tmp_path: Path) -> None:
    """Where a file can grow no more, that is said; it goes on once there is room."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, hub.url, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.startswith("disk_full"), run.stdout + run.stderr
    assert state(tmp_path) == "absent"
    hub.asked.clear()
    pull(download(hub, tmp_path))
    assert hub.requests("cdn", "unet")[0].range == f"bytes={1 << 20}-"


def test_a_cache_that_cannot_be_written_is_said(hub: StandIn, tmp_path: Path) -> None:
    """A file where the folder should be is no reason for a traceback."""
    (tmp_path / "cache").write_text("")
    error = refused(download(hub, tmp_path / "cache"))
    assert "the cache of models cannot be written" in error.info.message


def test_two_at_once_fetch_each_file_once(hub: StandIn, tmp_path: Path) -> None:
    """Whoever comes second waits for the first and uses what it brought."""
    threads = [threading.Thread(target=pull, args=(download(hub, tmp_path),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert state(tmp_path) == "ready"
    assert hub.bytes_sent == sum(len(hub.repositories[REPOSITORY].files[path]) for path in WANTED)


def test_who_waits_for_another_can_be_cancelled(hub: StandIn, tmp_path: Path) -> None:
    """The one that fetches goes on."""
    hub.hold_after = 1 << 20
    first = threading.Thread(target=pull, args=(download(hub, tmp_path),))
    first.start()
    assert hub.held.wait(10)
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    with pytest.raises(DownloadCancelled):
        pull(download(hub, tmp_path), cancelled)
    hub.hold_after = None
    hub.release.set()
    first.join(30)
    assert state(tmp_path) == "ready"
