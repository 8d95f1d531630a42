"""Client processes: started, stopped, killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .models import search_path
from .record import Entry, Follower, read

BENCH = Path(__file__).parents[1]


@dataclass
class ClientProcess:
    """One client through all its lives."""

    number: int
    words: list[str]
    path: Path
    process: subprocess.Popen[bytes] | None = None
    follower: Follower = field(init=False)
    """Counts the jobs that have ended."""
    broke: list[str] = field(default_factory=list)
    """What it said when it ended by itself without having finished."""

    def __post_init__(self) -> None:
        self.follower = Follower(self.path)

    def start(self) -> None:
        """Give it another life."""
        environment = {**os.environ, "PYTHONPATH": search_path(BENCH)}
        command = [sys.executable, "-m", "endurance.client", *self.words]
        with self.path.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=log)

    def kill(self) -> None:
        """End it at once; it does not live until it is started again."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self.lives:
            assert self.process is not None
            self.process.send_signal(number)

    @property
    def lives(self) -> bool:
        """Whether it runs. One that broke is started again, and what it said is kept."""
        if self.process is None or self.process.poll() is None:
            return self.process is not None
        if self.process.returncode != 0:
            self.broke.append(self.path.with_suffix(".log").read_text(errors="replace")[-2000:])
            self.start()
        return self.process.poll() is None

    @property
    def entries(self) -> list[Entry]:
        """Its record."""
        return read(self.path)


@dataclass(frozen=True)
class Crowd:
    """What all clients of one run have in common."""

    folder: Path
    token: str
    seed: int
    calm: bool

    def client(self, number: int, jobs: int, url: str) -> ClientProcess:
        """A client that does its plan at `url`, and is running."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"client-{number}.jsonl"
        window = 6 + 2 * number  # together they have more jobs open than one token may
        words = ["--url", url, "--token", self.token, "--record", str(path), "--seed", str(self.seed)]
        words += ["--number", str(number), "--jobs", str(jobs), "--window", str(window)]
        client = ClientProcess(number, [*words, *(["--calm"] if self.calm else [])], path)
        client.start()
        return client
