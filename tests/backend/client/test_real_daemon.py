"""The asyncio client and a real daemon, which is killed, stopped, and reached through TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from underpaint_backend.client import Refused, connect
from underpaint_backend.launch import Launched, launch, launched
from underpaint_protocol.client import Event, Picture
from underpaint_protocol.messages import Accepted, Done, Failed, Progress, Request, Started

from tests.certificates import self_signed

SLOW = Request("primer-inpaint", "text_to_image", 96, 96, prompt="blue", steps=150, seed=3)
QUICK = Request("primer-inpaint", "text_to_image", 300, 96, prompt="a red heart", steps=2, seed=3)


async def test_a_picture_of_several_tiles_comes_whole(daemon: Launched) -> None:
    """Equal requests give equal pictures, whatever connection brings them."""
    pictures = []
    for _ in range(2):
        async with connect(daemon.url, daemon.token) as client:
            pictures += await client.paint(QUICK)
    assert (pictures[0].width, pictures[0].height) == (300, 96)
    assert pictures[0].pixels == pictures[1].pixels


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_generate_goes_on_with_the_next_daemon(tmp_path: Path, how: str) -> None:
    """A job that was running when its daemon ended is finished by the next one, and ends once."""
    daemon = launch(tmp_path / "home", "--threads", "1", "--drain-seconds", "0")
    first, port = daemon, int(daemon.url.rpartition(":")[2])
    events: list[Event] = []
    try:
        async with asyncio.timeout(150), connect(daemon.url, daemon.token) as client:
            async for event in client.generate(SLOW):
                events.append(event)
                if daemon is first and isinstance(event, Progress) and event.step >= 20:
                    if how == "killed":
                        daemon.process.kill()
                    await asyncio.to_thread(daemon.stop)
                    daemon = launch(tmp_path / "home", "--threads", "1", port=port)
    finally:
        daemon.stop()
    assert len([event for event in events if isinstance(event, Accepted)]) == 1
    # that a daemon was stopped is not the job's fault, so its first attempt does not count
    attempts = [event.attempt for event in events if isinstance(event, Started)]
    assert attempts == ([1, 2] if how == "killed" else [1, 1])
    assert len([event for event in events if isinstance(event, Picture)]) == 1
    assert [type(event) for event in events if isinstance(event, (Done, Failed))] == [Done]


async def test_a_certificate_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    """Nothing is sent to a stranger; with a context that knows the certificate, all is well."""
    pair = self_signed(tmp_path)
    words = ("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key), "--threads", "1")
    with launched(tmp_path / "home", *words) as daemon:
        with pytest.raises(Refused) as refusal:
            async with connect(daemon.url, daemon.token):
                pass
        trusting = ssl.create_default_context(cafile=pair.certificate)
        async with connect(daemon.url, daemon.token, ssl=trusting) as client:
            assert client.welcome.server.startswith("underpaint")
    assert refusal.value.error.code == "unknown_certificate"
