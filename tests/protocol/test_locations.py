"""Where files lie on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from underpaint_protocol.locations import data_folder, launch_file, log_file, token_file

HOME = Path.home()


@pytest.mark.parametrize(
    ("environment", "platform", "folder"),
    [
        ({"UNDERPAINT_HOME": "/elsewhere"}, "linux", Path("/elsewhere")),
        ({"XDG_DATA_HOME": "/data"}, "linux", Path("/data/underpaint")),
        ({}, "linux", HOME / ".local/share/underpaint"),
        ({}, "darwin", HOME / "Library/Application Support/underpaint"),
        ({"LOCALAPPDATA": "/local"}, "win32", Path("/local/underpaint")),
        ({}, "win32", HOME / "AppData/Local/underpaint"),
    ],
)
def test_each_system_has_its_place(environment: dict[str, str], platform: str, folder: Path) -> None:
    """The data folder follows the system's custom, and a variable overrides it."""
    assert data_folder(environment, platform) == folder


def test_all_files_lie_in_one_folder() -> None:
    """Token, launch command and log are beside one another."""
    assert {path.parent for path in (token_file(), launch_file(), log_file())} == {data_folder()}
