"""The read-me tells the truth about what lies in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_what_it_links_to_is_there(path: str) -> None:
    """Every link and picture leads to a file."""
    assert (ROOT / path).is_file()


def test_every_measurement_it_names_can_be_run() -> None:
    """A figure without its command is a claim."""
    named = set(re.findall(r"run\.py bench (\w+)", README))
    assert named == {path.stem for path in (ROOT / "bench").glob("*.py")} - {"report", "plugin_client", "worker_line"}


def test_nothing_is_left_to_fill_in() -> None:
    """No placeholder stands where a figure belongs."""
    assert not re.findall(r"^[A-Z]{4,}$|@[A-Z]+@|TODO|XXX", README, re.MULTILINE)
