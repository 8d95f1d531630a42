"""A daemon that is not there, that is started from Krita, and that dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port

from .conftest import PHOTOGRAPHS, PICTURES, use_server
from .launch import Krita, Performance

SERVE = "{python} -P -m underpaint_backend serve --threads 1 --port {port}"
AWAY = "ws://127.0.0.1:1"
"""An address on this machine at which nobody listens, and no daemon of the artist's ever did."""


@pytest.fixture(scope="module")
def seen(krita: Krita, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Performance]:
    """What happened in Krita, with an Underpaint of its own that nobody else uses."""
    home = tmp_path_factory.mktemp("underpaint")
    port = free_port()
    use_server(home, f"ws://127.0.0.1:{port}")
    pids = home / "pids"
    serve = SERVE.format(python=sys.executable, port=port)
    launch = json.dumps(["sh", "-c", f"echo $$ >> {pids}; exec {serve}", "--listen", f"127.0.0.1:{port}"])
    (home / "launch.json").write_text(launch, encoding="utf-8")
    environment = {
        "UNDERPAINT_HOME": str(home),
        "UNDERPAINT_PHOTOGRAPH": str(PHOTOGRAPHS / "coffee.jpg"),
        "UNDERPAINT_PICTURES": str(PICTURES),
        "UNDERPAINT_PIDS": str(pids),
        "UNDERPAINT_LAUNCH": launch,
        "UNDERPAINT_AWAY": AWAY,
    }
    try:
        performance = krita.play("daemon", tmp_path_factory.mktemp("daemon"), environment, timeout=240)
        assert performance.errors == [], performance.output + _log(home)
        yield performance
    finally:
        for pid in pids.read_text().split() if pids.exists() else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)


def test_no_daemon_is_a_sentence_and_a_button(seen: Performance) -> None:
    """Without a daemon the docker says so and offers to start it, where it was listening last."""
    assert seen.facts["without"]["state"].startswith("Underpaint's daemon is not running at ws://127.0.0.1:")
    assert seen.facts["without"]["button"]
    assert seen.facts["without"]["boxes"] == []


def test_the_button_starts_a_daemon(seen: Performance) -> None:
    """One press later the docker is ready."""
    assert seen.facts["started"].startswith("Ready")


def test_a_killed_daemon_is_a_sentence(seen: Performance) -> None:
    """When the daemon dies in the middle, the docker says what goes on, offers to start another one, and to cancel."""
    killed = seen.facts["killed"]
    assert killed["state"].startswith("Underpaint's daemon is not running at ws://127.0.0.1:")
    assert "Your picture is not lost; trying again in" in killed["state"]
    assert (killed["button"], killed["cancel"], killed["boxes"]) == (True, True, [])


def test_the_layer_waits(seen: Performance) -> None:
    """It stays where it is, with the last preview in it."""
    assert seen.facts["killed"]["layers"] == [*seen.facts["layers_before"], ["a blue circle…", True]]
    assert seen.facts["killed"]["preview"]


def test_the_picture_still_arrives(seen: Performance) -> None:
    """With a daemon again, in the same layer and in one step of the history."""
    assert "(once more: it was interrupted)" in seen.facts["second_attempt"]
    assert seen.facts["arrived"].startswith("Done")
    assert seen.facts["arrived"].endswith(" s this time.")
    assert seen.facts["layers_arrived"] == [*seen.facts["layers_before"], ["a blue circle", False]]
    assert seen.facts["history_arrived"] == [*seen.facts["history_before"], "Add Layer"]
    assert seen.facts["active_arrived"] == seen.facts["active_before"]


def test_cancel_works_without_a_daemon(seen: Performance) -> None:
    """The growing layer goes, and everything is as it was."""
    assert seen.facts["cancelled"] == {"generate": True, "modified": False}
    assert seen.saved("after") == seen.saved("before")


def test_a_refusal_does_not_take_the_button_away(seen: Performance) -> None:
    """The daemon can still be started while the docker says that it cannot paint into this document."""
    refused = seen.facts["refused"]
    assert refused["state"].startswith("Underpaint needs a picture in RGB with 8 bits")
    assert refused["button"]


def test_a_server_elsewhere_is_not_started_here(seen: Performance) -> None:
    """Where no daemon of this machine belongs, the docker offers none, and names what may be down."""
    assert seen.facts["elsewhere"]["state"].startswith(
        f"The server at {AWAY} does not answer: it, or the tunnel to it, is not up."
    )
    assert not seen.facts["elsewhere"]["button"]


def test_krita_ends_well(seen: Performance) -> None:
    """Krita exits with 0 while the daemon that it started goes on."""
    assert (seen.boxes, seen.status) == ([], 0)


def _log(home: Path) -> str:
    log = home / "daemon.log"
    return log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.exists() else ""
