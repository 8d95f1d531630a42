"""What a clock that jumps does to a daemon, as when a machine gets the time from the network at last: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from underpaint_backend.launch import Launched, launched
from underpaint_backend.server.access.guests import Guest, changing
from underpaint_backend.server.access.tokens import digest_of, guests_beside, make_token
from underpaint_protocol.client import Picture
from underpaint_protocol.messages import REVOKED, Accepted, Cancelled, Done

from tests.backend.server.calling import LONG, SHORT, Caller, greeted

YEAR = 366 * 24 * 3600.0
MOVED_CLOCK = """
import datetime, os, time
from pathlib import Path

now = time.time

def moved_by():
    try:
        return float(Path(os.environ["MOVED_CLOCK"]).read_text() or 0)
    except OSError:
        return 0.0

class Moved(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=moved_by())

time.time = lambda: now() + moved_by()
datetime.datetime = Moved
"""
"""What every Python reads before all else: the time of day is off by the seconds in a file."""


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock of the daemons that the test starts."""
    folder = tmp_path / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(MOVED_CLOCK)
    (folder / "seconds").touch()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("MOVED_CLOCK", str(folder / "seconds"))

    def by(seconds: float) -> None:
        (folder / "seconds").write_text(str(seconds))

    return by


async def test_a_clock_that_jumps_between_two_daemons(tmp_path: Path) -> None:
    """A picture that waits for its client is still there when the clock is a year off at the next start, either way."""
    home, sessions = tmp_path / "home", {}
    with launched(home, "--threads", "1") as daemon:
        for jump in (-YEAR, YEAR):
            async with Caller(daemon) as client:
                client.submit("waits", SHORT)
                await client.end_of("waits")
                sessions[client.core.session] = jump
    with contextlib.closing(sqlite3.connect(home / "journal.sqlite")) as journal, journal:
        for session, jump in sessions.items():
            journal.execute("UPDATE jobs SET ended = ended + ? WHERE session = ?", (jump, session))
    with launched(home, "--threads", "1") as daemon:
        await books_kept(daemon)
        for session in sessions:
            async with Caller(daemon, session) as client:
                assert isinstance(await client.end_of("waits"), Done)
                assert any(isinstance(event, Picture) for event in client.of("waits"))


async def test_a_clock_that_jumps_while_the_daemon_runs(tmp_path: Path, move: Callable[[float], None]) -> None:
    """A year ahead, then a year back: nobody loses a picture that waits or a job that runs, and new jobs are done."""
    with launched(tmp_path / "home", "--threads", "1") as daemon:
        async with Caller(daemon) as away:
            away.submit("waits", SHORT)
            await away.end_of("waits")
        async with Caller(daemon) as client:
            client.submit("runs", LONG)
            await client.denoising("runs")
            for job, jump in (("later", YEAR), ("earlier", -YEAR)):
                move(jump)
                await books_kept(daemon)
                assert f"{datetime.now(UTC) + timedelta(seconds=jump):%Y-%m}" in daemon.log.read_text()
                client.submit(job, SHORT)
                assert await client.until(partial(is_accepted, job))
            client.core.cancel("runs")
            assert isinstance(await client.end_of("runs"), Cancelled)
            assert isinstance(await client.end_of("later"), Done)
            assert isinstance(await client.end_of("earlier"), Done)
        async with Caller(daemon, away.core.session) as back:
            assert isinstance(await back.end_of("waits"), Done)
            assert any(isinstance(event, Picture) for event in back.of("waits"))


async def books_kept(daemon: Launched) -> None:
    """Wait until the daemon has looked for what is too old: right after, it sees off whose token was taken back."""
    guests, token = guests_beside(daemon.home / "token"), make_token()
    with changing(guests) as known:
        known["leaving"] = Guest(digest_of(token))
    leaving, _ = await greeted(daemon, token)
    with changing(guests) as known:
        known.clear()
    async with asyncio.timeout(30):
        await leaving.wait_closed()
    assert leaving.close_code == REVOKED


def is_accepted(job: str, event: object) -> bool:
    """Whether it says that this job was accepted."""
    return isinstance(event, Accepted) and event.job == job
