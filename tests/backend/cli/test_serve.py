"""The daemon as someone starts it."""

from __future__ import annotations

import argparse
import json
import re
import socket
import ssl
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from underpaint_backend.cli import serve
from underpaint_backend.launch import launched
from underpaint_backend.server.access.tls import fingerprint
from underpaint_protocol.messages import SUBPROTOCOL
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.certificates import Pair, self_signed


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return self_signed(tmp_path)


def refused(home: Path, *words: str | Path) -> str:
    """The one line with which `underpaint serve` ends."""
    (line,) = ended(home, *words)
    return line


def ended(home: Path, *words: str | Path) -> list[str]:
    """All that `underpaint serve` said before it ended for bad input."""
    run = subprocess.run(
        [sys.executable, "-m", "underpaint_backend", "serve", "--port", "0", *map(str, words)],
        env={"UNDERPAINT_HOME": str(home), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    return run.stderr.splitlines()


async def status(url: str, token: str, host: str = "", trusted: Path | None = None) -> int:
    """The HTTP status with which a handshake under the name `host` is answered; 101 if it goes through."""
    context = ssl.create_default_context(cafile=trusted) if trusted else None
    address = url.rpartition("//")[2]
    where, _, port = address.rpartition(":")
    named = url.replace(where, host) if host else url
    try:
        async with connect(
            named,
            host=where.strip("[]"),
            port=int(port),
            ssl=context,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {token}"},
            proxy=None,
        ):
            return 101
    except InvalidStatus as refusal:
        return refusal.response.status_code


@pytest.mark.parametrize("origin", ["null", "NULL", "*", "https://*.example", "example.org", "https://a.example/", ""])
def test_what_is_no_origin_of_one_site_cannot_be_allowed(tmp_path: Path, origin: str) -> None:
    """`null` is what every sandboxed page sends, and the others never match what a browser sends."""
    line = ended(tmp_path, "--allow-origin", origin)[-1]
    assert "argument --allow-origin: must be like https://example.org" in line
    assert line.endswith(f"it was {origin}")


@pytest.mark.parametrize("device", ["toaster", "cuda:99"])
def test_a_device_that_is_not_there_is_said_at_once(tmp_path: Path, device: str) -> None:
    """With those that are there; the daemon ends instead of waiting for jobs that it could never paint."""
    said = ended(tmp_path, "--device", device)
    assert f"underpaint: there is no device “{device}” here" in said[-1]
    assert "There is: cpu" in said[-1]
    assert "Traceback" not in "".join(said)
    assert not (tmp_path / "launch.json").exists()


def test_a_device_that_is_there_is_used(tmp_path: Path) -> None:
    """Also where it had to be tried out first; and the worker of that trial is the one that paints."""
    with launched(tmp_path / "home", "--device", "cpu:0", "--threads", "1") as daemon:
        log = daemon.log.read_text()
    assert log.count("the worker starts as process") == 1
    assert "ready on cpu" in log


@pytest.mark.parametrize(("precision", "extra"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_precision_whose_library_is_missing_is_refused(tmp_path: Path, precision: str, extra: str) -> None:
    """With the words that install it, before anybody waits for the first job."""
    if find_spec(extra) is not None and extra not in sys.modules:
        pytest.skip(f"{extra} is installed here")
    said = refused(tmp_path, "--precision", precision)
    words = f".venv/bin/pip install 'underpaint[{extra}]'"
    assert said == f"underpaint: --precision {precision} needs one more library; install it with: {words}"


@pytest.mark.parametrize("precision", ["fp8", "int8", "nf4"])
def test_a_precision_that_fetching_would_pass_over_is_refused(tmp_path: Path, precision: str) -> None:
    """What is fetched layer by layer is not packed, so whoever wants both is told."""
    said = refused(tmp_path, "--precision", precision, "--offload", "group")
    assert said.startswith(f"underpaint: --precision {precision} and --offload group do not go together")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.1.2.3", "box.example"])
def test_other_machines_need_tls(tmp_path: Path, host: str) -> None:
    """Listening beyond loopback without a certificate is refused unless the flag that says so is spelled out."""
    line = refused(tmp_path, "--listen", f"{host}:0")
    assert f"{host.strip('[]')} can be reached by other machines" in line
    assert "--tls-cert and --tls-key" in line
    assert "--insecure-no-tls" in line


def test_a_certificate_without_its_key_is_said(tmp_path: Path, pair: Pair) -> None:
    """With the option that was forgotten; so is a key without its certificate."""
    assert "Name the file that does with --tls-key" in refused(tmp_path, "--tls-cert", pair.certificate)
    assert "Name that with --tls-cert" in refused(tmp_path, "--tls-key", pair.key)


def test_a_key_that_cannot_be_used_is_said(tmp_path: Path, pair: Pair) -> None:
    """One that is not there, and one of another certificate."""
    missing = ["--tls-cert", pair.certificate, "--tls-key", tmp_path / "missing.key"]
    assert "missing.key cannot be read: No such file or directory" in refused(tmp_path, *missing)
    wrong = ["--tls-cert", pair.certificate, "--tls-key", self_signed(tmp_path, "other").key]
    assert "other.key belongs to another certificate" in refused(tmp_path, *wrong)


async def test_a_daemon_with_a_certificate(tmp_path: Path, pair: Pair) -> None:
    """It answers under wss, and its log has the fingerprint that the plugin shows."""
    words = ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
    with launched(tmp_path / "home", *words) as daemon:
        assert daemon.url.startswith("wss://127.0.0.1:")
        assert await status(daemon.url, daemon.token, trusted=pair.certificate) == 101
        assert f"(SHA-256) is {fingerprint(pair.certificate)}" in daemon.log.read_text()


async def test_a_daemon_answers_under_the_names_it_was_given(tmp_path: Path) -> None:
    """The one that it listens on and those that are allowed, and under no other."""
    with launched(tmp_path / "home", "--listen", "127.8.8.8:0", "--allow-host", "Box.example") as daemon:
        assert await status(daemon.url, daemon.token) == 101
        assert await status(daemon.url, daemon.token, "box.example") == 101
        assert await status(daemon.url, daemon.token, "other.example") == 403


async def test_a_daemon_on_ipv6(tmp_path: Path) -> None:
    """Its address is in brackets, as everywhere."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with launched(tmp_path / "home", "--listen", "[::1]:0") as daemon:
        assert re.fullmatch(r"ws://\[::1\]:\d+", daemon.url)
        assert await status(daemon.url, daemon.token) == 101


def test_the_daemon_writes_down_how_to_start_it_again(tmp_path: Path, pair: Pair) -> None:
    """The plugin's button starts the same daemon, at the same port, and may say another port yet."""
    words = ["--listen", "127.0.0.1:0", "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
    more = ["--allow-host", "box.example", "--allow-origin", "https://a.example", "--threads", "1", "--keep-hours", "3"]
    more += ["--memory-gib", "1.5", "--precision", "float32", "--offload", "none"]
    with launched(tmp_path / "home", *words, *more) as daemon:
        command = json.loads((daemon.home / "launch.json").read_text())
    assert command[:5] == [sys.executable, "-P", "-m", "underpaint_backend", "serve"]
    first, again = parsed(*words, *more), parsed(*command[5:])
    assert again.pop("listen").port == int(daemon.url.rpartition(":")[2])
    first.pop("listen")
    assert again == first
    assert str(parsed(*command[5:], "--port", "9")["listen"]) == "127.0.0.1:9"


def parsed(*words: str) -> dict[str, Any]:
    """What these words of a command line mean."""
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return vars(parser.parse_args(words))


def test_how_an_earlier_daemon_was_started_is_understood() -> None:
    """A file that an earlier version wrote still starts this one."""
    words = ["--address", "0.0.0.0", "--port", "8738", "--device", "auto"]
    assert str(parsed(*words)["listen"]) == "0.0.0.0:8738"


@pytest.mark.parametrize("words", [["--keep-hours", "0"], ["--drain-seconds", "nan"], ["--drain-seconds", "-1"]])
def test_what_is_no_amount_is_refused(words: list[str]) -> None:
    """Before anything starts."""
    with pytest.raises(SystemExit):
        parsed(*words)
