"""Tokens for others, as someone types it."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from underpaint_backend.server.access.owners import Allowance, Owner
from underpaint_backend.server.access.tokens import Tokens, digest_of, load_token


def token(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "underpaint_backend", "token", *words],
        env={"UNDERPAINT_HOME": str(home), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


def added(home: Path, *words: str) -> str:
    """The token that `token add` printed."""
    run = token(home, "add", *words)
    assert run.returncode == 0, run.stderr
    (shown,) = re.findall(r"^ +([0-9a-f]{64})$", run.stdout, re.MULTILINE)
    return str(shown)


def test_a_token_is_shown_once_and_opens_the_gate(tmp_path: Path) -> None:
    """What was printed is accepted, with the allowance of whoever has no bounds of their own."""
    shown = added(tmp_path, "anna")
    assert Tokens(tmp_path / "token").find(shown) == Owner("anna", Allowance())
    assert shown not in (tmp_path / "tokens.json").read_text()
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600


def test_an_allowance_is_said_in_an_artists_units(tmp_path: Path) -> None:
    """Megapixels and MiB in, pixels and bytes inside; the list says them again."""
    words = ["--connections", "2", "--jobs", "3", "--megapixels", "4", "--upload-mib", "5", "--work-per-day", "600"]
    shown = added(tmp_path, "bob", *words)
    expected = Allowance(2, 3, 4 << 20, 5 << 20, 600)
    assert Tokens(tmp_path / "token").find(shown) == Owner("bob", expected)
    listed = token(tmp_path, "list").stdout.splitlines()
    assert listed[0].startswith("owner ")
    assert re.sub(" +", " ", listed[1]) == "bob 2 connections, 3 jobs, 4 megapixels, 5 MiB, 600 megapixel steps a day"


def test_a_token_can_be_revoked(tmp_path: Path) -> None:
    """It is not in the list any more and opens nothing; the others stay."""
    anna, bob = added(tmp_path, "anna"), added(tmp_path, "bob")
    assert token(tmp_path, "revoke", "anna").returncode == 0
    tokens = Tokens(tmp_path / "token")
    assert tokens.find(anna) is None
    assert tokens.find(bob) is not None
    assert tokens.digests() == {digest_of(token) for token in (load_token(tmp_path / "token"), bob)}


@pytest.mark.parametrize("name", ["Anna", "", "-a", "../x", "a b", "a" * 33, "ä", "owner", "anna\n"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    """Before anything is written."""
    run = token(tmp_path, "add", "--", name)
    assert run.returncode == 2
    assert re.search("small letters|must not be “owner”", run.stderr)
    assert not (tmp_path / "tokens.json").exists()


@pytest.mark.parametrize("bound", ["--connections=0", "--jobs=-1", "--megapixels=many", "--upload-mib=9999999999"])
def test_a_bound_that_is_none_is_refused(tmp_path: Path, bound: str) -> None:
    """Each is a number of at least one."""
    run = token(tmp_path, "add", "anna", bound)
    assert run.returncode == 2
    assert "must be a number from 1 to 1073741824" in run.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["add", "anna"], "there is a token for anna already. Revoke it first, or choose another name"),
        (["revoke", "bob"], "there is no token for bob"),
        (["revoke", "owner"], "the owner's token is a file: delete "),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path: Path, words: list[str], sentence: str) -> None:
    """With exit code 2, and nothing is changed."""
    added(tmp_path, "anna")
    before = (tmp_path / "tokens.json").read_text()
    run = token(tmp_path, *words)
    assert run.returncode == 2
    assert run.stderr.startswith(f"underpaint: {sentence}")
    assert run.stderr.count("\n") == 1
    assert (tmp_path / "tokens.json").read_text() == before


@pytest.mark.parametrize("words", [["add", "bob"], ["revoke", "anna"], ["list"]])
def test_a_damaged_file_is_never_overwritten(tmp_path: Path, words: list[str]) -> None:
    """It may be mended yet; what to do is said."""
    (tmp_path / "tokens.json").touch(mode=0o600)
    (tmp_path / "tokens.json").write_text('{"tokens": {"anna": ')
    run = token(tmp_path, *words)
    assert run.returncode == 2
    assert "is damaged" in run.stderr
    assert "move it away" in run.stderr
    assert (tmp_path / "tokens.json").read_text() == '{"tokens": {"anna": '


def test_a_change_that_was_interrupted_is_said(tmp_path: Path) -> None:
    """Nobody's tokens are lost, and the file that is in the way is named."""
    added(tmp_path, "anna")
    (tmp_path / "tokens.json.new").touch()
    run = token(tmp_path, "add", "bob")
    assert run.returncode == 2
    assert f"delete {tmp_path / 'tokens.json.new'}" in run.stderr
    assert list(json.loads((tmp_path / "tokens.json").read_text())["tokens"]) == ["anna"]
