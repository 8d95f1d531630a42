"""Starting Underpaint's daemon on this machine, so that it outlives Krita."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional
from urllib.parse import urlsplit

from ._vendor.underpaint_protocol import locations
from ._vendor.underpaint_protocol.errors import ErrorInfo, describe
from .settings import is_local

KRITAS_OWN = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "QT_PLUGIN_PATH", "QML2_IMPORT_PATH")
"""Variables that Krita sets for itself and that would lead another Python astray."""

COMPLAINT = "underpaint: "
LOG_READ = 1 << 20
START_TIMEOUT = 90.0
"""Seconds that a daemon may take to listen: a first start imports a lot."""


@dataclass(frozen=True)
class Starting:
    """A daemon that was started and does not listen yet; `end` is when patience ends, on the monotonic clock.

    What it says goes to the log, from the byte `said` on.
    """

    process: subprocess.Popen[bytes]
    end: float
    said: int = 0

    @property
    def problem(self) -> Optional[ErrorInfo]:
        """Why it is no use to wait any longer; None while it is."""
        if self.process.poll() is not None:
            return describe("not_started", detail=_last_words(self.said) or f"it ended with {self.process.returncode}")
        if time.monotonic() > self.end:
            return describe("not_started", detail=f"it does not answer after {START_TIMEOUT:.0f} s")
        return None


def launch_command() -> Optional[List[str]]:
    """The words that start the daemon: as it wrote them down itself, else `underpaint serve`, else None."""
    words = _recorded()
    if words:
        return words
    program = shutil.which("underpaint")
    return [program, "serve"] if program else None


def _recorded() -> List[str]:
    """How the daemon was started last, as it wrote down itself; nothing if it did not, or the file is damaged."""
    try:
        words: Any = json.loads(locations.launch_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else []


def is_own(server: str) -> bool:
    """Whether a daemon that is started on this machine belongs at `server`.

    It does at the usual port and at the one at which it listened last. Behind any other port of this machine may be a
    tunnel to another one.
    """
    try:
        address = urlsplit(server)
        usual = address.scheme == "ws" and is_local(server)
        return usual and address.port in (locations.DEFAULT_PORT, _last_port())
    except ValueError:
        return False


def _last_port() -> int:
    """The port at which the daemon listened last; the usual one if nobody knows."""
    words = _recorded()
    _, _, port = words[words.index("--listen") + 1].rpartition(":") if "--listen" in words[:-1] else ("", "", "")
    return int(port) if port.isdecimal() else locations.DEFAULT_PORT


def at_port_of(server: str, command: List[str]) -> List[str]:
    """`command` with the port at which the plugin will look for the daemon; the last one said counts."""
    port = urlsplit(server).port
    return [*command, "--port", str(port)] if port else command


def start(command: List[str]) -> Starting:
    """Start the daemon, detached from Krita; what it says goes to the log. Raises `OSError` if it cannot be started."""
    log = locations.log_file()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        said = output.tell()
        process = subprocess.Popen(
            command,
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **_detached(),
        )
    return Starting(process, time.monotonic() + START_TIMEOUT, said)


def _last_words(since: int) -> str:
    """What a daemon complained of when it ended, if it did so as `underpaint` does: in one line with its name."""
    try:
        with locations.log_file().open("rb") as log:
            log.seek(since)
            lines = log.read(LOG_READ).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    complaints = [line[len(COMPLAINT) :] for line in lines if line.startswith(COMPLAINT)]
    return complaints[-1].strip().rstrip(".") if complaints else ""


def clean_environment(environment: Mapping[str, str]) -> Dict[str, str]:
    """`environment` without what Krita put there for itself."""
    return {name: value for name, value in environment.items() if name not in KRITAS_OWN}


def _detached() -> Dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}
