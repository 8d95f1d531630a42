"""A daemon on this machine, which the network thread starts and finds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita.events import Disconnected

from tests.ports import free_port

from .wire import PATIENCE, Client, Peer, serving


def test_the_daemon_is_started_and_found(client: Client, home: Path) -> None:
    """One call starts it, waits until it listens, and connects with the token that it made."""
    port = free_port()
    words = [sys.executable, "-P", "-m", "underpaint_backend", "serve", "--port", str(port)]
    (home / "launch.json").write_text(json.dumps(words))
    try:
        client.network.start_daemon(f"ws://127.0.0.1:{port}", lambda: _read(home / "token"))
        assert client.until(m.Welcome).server
    finally:
        assert client.network.started is not None
        client.network.started.terminate()
        client.network.started.wait(PATIENCE)


def test_a_daemon_that_runs_is_not_started_again(client: Client, home: Path) -> None:
    """If it came up meanwhile, it is used."""
    (home / "launch.json").write_text(json.dumps(["sh", "-c", f'touch "{home}/started"']))
    with serving(Peer.wait) as server:
        client.network.start_daemon(server, lambda: "token")
        client.until(m.Welcome)
    assert not (home / "started").exists()


@pytest.mark.parametrize(
    ("command", "code"), [(["sh", "-c", "exit 3"], "not_started"), (["/no/such/program"], "not_started")]
)
def test_a_daemon_that_does_not_start_is_a_sentence(client: Client, home: Path, command: list[str], code: str) -> None:
    """Whether it cannot be run or gives up."""
    (home / "launch.json").write_text(json.dumps(command))
    client.network.start_daemon(f"ws://127.0.0.1:{free_port()}", lambda: "token")
    assert client.until(Disconnected).error.code == code


def test_no_daemon_on_this_machine_is_a_sentence(client: Client, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to start."""
    monkeypatch.setenv("PATH", str(home))
    client.network.start_daemon(f"ws://127.0.0.1:{free_port()}", lambda: "token")
    assert client.until(Disconnected).error.code == "not_installed"


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
