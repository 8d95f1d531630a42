"""The folder watcher, while daemons and watchers come and go."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from underpaint_backend.launch import Launched, launch

from tests.backend.server.journals import jobs_in, work_in
from tests.examples.running import command, environment, example

SIDE = 96


def put(folder: Path, name: str, prompt: str = "a red circle") -> None:
    """A grey picture with a mask and words."""
    (folder / f"{name}.txt").write_text(prompt)
    Image.new("RGB", (SIDE, SIDE), "grey").save(folder / f"{name}.png")
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (24, 24, 72, 72))
    mask.save(folder / f"{name}.part", "PNG")
    (folder / f"{name}.part").rename(folder / f"{name}.mask.png")


def assert_painted(folder: Path, name: str) -> None:
    """The result differs from the picture, and only inside the mask."""
    with Image.open(folder / f"{name}.painted.png") as after:
        before = Image.new("RGB", (SIDE, SIDE), "grey")
        box = ImageChops.difference(before, after.convert("RGB")).getbbox()
    assert box is not None
    assert box[0] >= 24
    assert box[1] >= 24
    assert box[2] <= 72
    assert box[3] <= 72


@contextlib.contextmanager
def watching(folder: Path, daemon: Launched) -> Iterator[subprocess.Popen[bytes]]:
    """A watcher for the length of a block, at whose end it is killed."""
    words = command("watch_folder.py", str(folder), "--interval", "0.1", "--url", daemon.url)
    with subprocess.Popen(words, env=environment(daemon)) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_what_lies_in_the_folder_is_painted(daemon: Launched, tmp_path: Path) -> None:
    """A picture with a mask gets its result; one without, and one that is damaged, do not stop it."""
    put(tmp_path, "photo")
    put(tmp_path, "broken")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "alone.png")
    run = example("watch_folder.py", str(tmp_path), "--once", daemon=daemon)
    assert run.returncode == 0, run.stderr
    assert_painted(tmp_path, "photo")
    assert "broken.png is not a PNG" in run.stderr
    assert not (tmp_path / "alone.painted.png").exists()


def test_it_goes_on_when_the_daemon_comes_back(tmp_path: Path) -> None:
    """Pictures that come while the daemon is away are painted by the next one, and nobody restarts the watcher."""
    home, folder = tmp_path / "home", tmp_path / "folder"
    folder.mkdir()
    daemon = launch(home, "--threads", "1")
    port = int(daemon.url.rpartition(":")[2])
    try:
        with watching(folder, daemon):
            put(folder, "first")
            wait_until((folder / "first.painted.png").exists)
            daemon.process.kill()
            daemon.process.wait()
            put(folder, "second")
            time.sleep(0.5)
            daemon = launch(home, "--threads", "1", port=port)
            wait_until((folder / "second.painted.png").exists)
    finally:
        daemon.stop()
    assert_painted(folder, "first")
    assert_painted(folder, "second")


@pytest.mark.parametrize("moment", ["accepted", "begun"])
def test_it_goes_on_when_it_is_killed_itself(own_daemon: Launched, tmp_path: Path, moment: str) -> None:
    """The next watcher finds the jobs of the one that was killed, and paints nothing twice."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with watching(folder, own_daemon) as watcher:
        wait_until((folder / ".underpaint").exists)
        put(folder, "photo")
        painted = folder / "photo.painted.png"
        attempts = 1 if moment == "begun" else 0
        wait_until(lambda: any(job[0] >= attempts for job in jobs_in(own_daemon.home).values()) or painted.exists())
        watcher.kill()
        watcher.wait()
    work = work_in(own_daemon.home)
    with watching(folder, own_daemon):
        wait_until(painted.exists)
    assert_painted(folder, "photo")
    assert work_in(own_daemon.home) == work > 0


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    """In one line, before anybody is asked."""
    words = command("watch_folder.py", str(tmp_path / "missing"))
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith(f"there is no folder {tmp_path / 'missing'}")
    assert "Traceback" not in run.stderr
