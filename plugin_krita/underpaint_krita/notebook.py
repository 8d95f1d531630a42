"""What must not be forgotten when Krita dies: by server, the session and the jobs whose pictures are not safe yet.

A small file beside the settings, readable by its owner alone, as prompts are in it. Krita has a docker for each of its
windows, and each has a conversation of its own with the server: the first one keeps `krita-jobs.json`, the second one
`krita-jobs-2.json`, and so on; the next Krita takes them over in the same order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import IO, Any, Dict, Optional

from ._vendor.underpaint_protocol.exceptions import ProtocolError
from ._vendor.underpaint_protocol.messages import Request, Resume
from .claim import claim
from .events import Job, Place

log = logging.getLogger(__name__)

WINDOWS = 16
"""Dockers that remember anything, at most."""
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, ProtocolError)
"""What reading a file raises that is not what was written."""


class Notebook:
    """Sessions and open jobs, by server. Every change is on the disk when its method returns.

    A disk that does not take it is no reason not to paint: then the log says so.
    """

    def __init__(self, path: Optional[Path] = None, lock: Optional[IO[bytes]] = None) -> None:
        """Read what is in the file `path`, passing over what is damaged; without one, all ends with Krita.

        `lock` is kept for as long as this lives.
        """
        self._path = path
        self._lock = lock
        self._sessions: Dict[str, str] = {}
        self._jobs: Dict[str, Dict[str, Job]] = {}
        with contextlib.suppress(OSError, *DAMAGE):
            self._read(json.loads(path.read_text(encoding="utf-8")) if path is not None else {})

    def close(self) -> None:
        """Let somebody else have the file."""
        if self._lock is not None:
            self._lock.close()

    def session(self, server: str) -> Optional[str]:
        """The id of the last session with `server`."""
        return self._sessions.get(server)

    def jobs(self, server: str) -> Dict[str, Job]:
        """The open jobs at `server` by id, without their pixels."""
        return dict(self._jobs.get(server, {}))

    def begin(self, server: str, session: str) -> None:
        """This is the session with `server`; its jobs go on in it."""
        if self._sessions.get(server) != session:
            self._sessions[server] = session
            self._write()

    def add(self, server: str, job: Job) -> None:
        """Remember a job that is about to be submitted."""
        self._jobs.setdefault(server, {})[job.id] = dataclasses.replace(job, pixels=None, mask=None)
        self._write()

    def remove(self, job: str) -> None:
        """Forget a job, at whichever server: its picture is safe, or nobody wants it."""
        if any(jobs.pop(job, None) is not None for jobs in self._jobs.values()):
            self._write()

    def _read(self, stored: Any) -> None:
        for server, known in stored.items():
            with contextlib.suppress(*DAMAGE):
                session = Resume(known["session"], 0).session
                jobs = {name: _job(name, described) for name, described in known["jobs"].items()}
                self._sessions[server], self._jobs[server] = session, jobs

    def _write(self) -> None:
        if self._path is None:
            return
        stored = {
            server: {"session": session, "jobs": {job.id: _described(job) for job in self.jobs(server).values()}}
            for server, session in self._sessions.items()
        }
        try:
            _replace(self._path, json.dumps(stored, ensure_ascii=False, indent=1).encode("utf-8"))
        except OSError:
            log.exception("%s could not be written", self._path)


def claimed_notebook(folder: Path) -> Notebook:
    """The first ledger in `folder` that nobody else keeps."""
    with contextlib.suppress(OSError):
        for number in range(1, WINDOWS + 1):
            name = "krita-jobs" if number == 1 else f"krita-jobs-{number}"
            lock = claim(folder / f"{name}.lock")
            if lock is not None:
                return Notebook(folder / f"{name}.json", lock)
    log.warning("nothing is remembered should Krita end: no file in %s can be had", folder)
    return Notebook()


def _described(job: Job) -> Dict[str, Any]:
    return {"request": job.request.to_wire(), "place": dataclasses.asdict(job.place)}


def _job(name: str, described: Dict[str, Any]) -> Job:
    place = described["place"]
    x, y, width, height = (int(place[name]) for name in ("x", "y", "width", "height"))
    request = Request.from_wire(described["request"])
    return Job(name, request, place=Place(x, y, width, height, str(place["document"])))


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. It need not outlast a loss of power, which Krita's death is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    os.replace(new, path)
