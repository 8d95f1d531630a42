"""What is made from the sources is as new as they are."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from underpaint_protocol.errors import TABLE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BACKEND = ROOT / "backend" / "underpaint_backend"
TABLED = [
    *(BACKEND / name for name in ("engine", "imaging", "models", "server", "worker")),
    *(BACKEND / "server" / name for name in ("access", "hosts", "journal")),
    ROOT / "plugin_krita" / "underpaint_krita",
]
"""Folders whose files are named one by one in a README, their own or the one above."""


@pytest.fixture
def make_errors(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program that writes the page of errors."""
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("make_errors")


def test_the_page_of_errors_is_as_new_as_the_table(make_errors: ModuleType) -> None:
    """Whoever changes the table runs `python3 run.py docs`."""
    assert (DOCS / "errors.md").read_text(encoding="utf-8") == make_errors.page(), "run: python3 run.py docs"


def test_every_error_is_on_the_page(make_errors: ModuleType) -> None:
    """Once, in a row of four cells, with nothing left in braces."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in make_errors.page().splitlines() if line.startswith("| `")]
    assert [row[0].strip(" `") for row in rows] == list(TABLE)
    assert all(len(row) == 4 for row in rows)
    assert "{" not in make_errors.page()


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_what_a_page_links_to_is_there(path: Path) -> None:
    """Every link leads to a file."""
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).is_file(), target


@pytest.mark.parametrize("folder", TABLED, ids=lambda folder: folder.name)
def test_every_file_has_its_place_in_the_readme(folder: Path) -> None:
    """Whoever looks for something finds each module in a table, with what it is about."""
    own, above = folder / "README.md", folder.parent / "README.md"
    table = (own if own.exists() else above).read_text(encoding="utf-8")
    named = {Path(path).name for path in re.findall(r"`([\w/]+\.py)`", table)}
    assert {path.name for path in folder.glob("*.py")} - {"__init__.py"} <= named
