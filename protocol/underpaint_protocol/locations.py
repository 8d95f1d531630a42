"""Where Underpaint keeps its files on this machine: the token, the log, and the command that starts the daemon.

The plugin and the daemon both look here, so that on one machine nobody has to copy a token.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Mapping

DEFAULT_PORT = 8738


def data_folder(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """The folder of this user's Underpaint; it need not exist yet. `UNDERPAINT_HOME` overrides it."""
    override = environment.get("UNDERPAINT_HOME")
    if override:
        return Path(override)
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "underpaint"
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "underpaint"
    return Path(environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "underpaint"


def token_file() -> Path:
    """The daemon's token: 64 hexadecimal digits, readable by its owner alone."""
    return data_folder() / "token"


def launch_file() -> Path:
    """How to start the daemon: a JSON list of words, written by the daemon itself."""
    return data_folder() / "launch.json"


def log_file() -> Path:
    """What the daemon says when the plugin started it."""
    return data_folder() / "daemon.log"
