"""Whose token is whose, on real files."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from underpaint_backend.server.access.guests import Guest, changing, read_guests
from underpaint_backend.server.access.owners import OWNER, Allowance, Owner
from underpaint_backend.server.access.tokens import Tokens, digest_of, guests_beside, load_token, make_token

SMALL = Allowance(connections=1, jobs=2, pixels=1 << 20, tile_bytes=1 << 20, work_per_day=500)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the owner's token is kept."""
    return tmp_path / "token"


def add(path: Path, name: str, allowance: Allowance = SMALL) -> str:
    """A new token for `name`."""
    token = make_token()
    with changing(guests_beside(path)) as guests:
        guests[name] = Guest(digest_of(token), allowance)
    return token


def write(path: Path, text: str) -> None:
    """Put `text` where the guests' digests are."""
    guests = guests_beside(path)
    guests.touch(mode=0o600)
    guests.write_text(text)


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """The first start makes 256 random bits in a file with mode 0600; later starts read them."""
    path = tmp_path / "folder" / "token"
    token = load_token(path)
    assert len(bytes.fromhex(token)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_token(path) == token


def test_a_token_that_others_can_read_is_refused(path: Path) -> None:
    """A token file that lost its protection stops the daemon with the command that mends it."""
    load_token(path)
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        Tokens(path)


def test_an_empty_token_file_is_refused(path: Path) -> None:
    """An empty file is never taken for a token."""
    path.touch(mode=0o600)
    with pytest.raises(ValueError, match="no token"):
        Tokens(path)


def test_the_owner_comes_in(path: Path) -> None:
    """With the token of the file, and with the full allowance."""
    tokens = Tokens(path)
    assert tokens.find(load_token(path)) == Owner(OWNER, Allowance())
    assert tokens.digests() == {digest_of(load_token(path))}


@pytest.mark.parametrize("token", ["", "0" * 64, "ü", "\udcff\udcfe", "a" * 100_000])
def test_nobody_else_does(path: Path, token: str) -> None:
    """Whatever is said."""
    add(path, "anna")
    assert Tokens(path).find(token) is None


def test_a_digest_is_no_token(path: Path) -> None:
    """Who reads the file of digests cannot come in with what is there."""
    token = add(path, "anna")
    text = guests_beside(path).read_text()
    assert token not in text
    assert digest_of(token) in text
    assert Tokens(path).find(digest_of(token)) is None


def test_a_guest_comes_in_with_an_allowance(path: Path) -> None:
    """Each with their own."""
    anna, bob = add(path, "anna"), add(path, "bob", Allowance())
    tokens = Tokens(path)
    assert tokens.find(anna) == Owner("anna", SMALL)
    assert tokens.find(bob) == Owner("bob", Allowance())
    assert tokens.digests() == {digest_of(token) for token in (load_token(path), anna, bob)}


def test_guests_come_and_go_while_the_daemon_runs(path: Path) -> None:
    """A token that is added counts at once, and one that is revoked no more."""
    tokens = Tokens(path)
    anna = add(path, "anna")
    assert tokens.find(anna) == Owner("anna", SMALL)
    with changing(guests_beside(path)) as guests:
        del guests["anna"]
    assert tokens.find(anna) is None
    assert tokens.find(load_token(path)) is not None


def test_the_owners_token_can_be_changed_while_the_daemon_runs(path: Path) -> None:
    """The old one does not open any more, and without the file nothing does."""
    tokens = Tokens(path)
    old = load_token(path)
    path.unlink()
    assert tokens.find(old) is None
    new = load_token(path)
    assert tokens.find(old) is None
    assert tokens.find(new) == Owner(OWNER)


def test_only_the_owner_can_read_the_file(path: Path) -> None:
    """The digests are nobody else's business, and nobody else may add one."""
    add(path, "anna")
    assert stat.S_IMODE(guests_beside(path).stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["tokens.json"]


ENTRY = {"sha256": "0" * 64}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"tokens": 3}',
        "[" * 100_000,
        json.dumps({"tokens": {"Anna": ENTRY}}),
        json.dumps({"tokens": {"../anna": ENTRY}}),
        json.dumps({"tokens": {OWNER: ENTRY}}),
        json.dumps({"tokens": {"anna": {}}}),
        json.dumps({"tokens": {"anna": "secret"}}),
        json.dumps({"tokens": {"anna": {"sha256": "short"}}}),
        json.dumps({"tokens": {"anna": {"sha256": 7}}}),
        json.dumps({"tokens": {"anna": {**ENTRY, "allowance": 7}}}),
        json.dumps({"tokens": {"anna": {**ENTRY, "allowance": {"jobs": 0}}}}),
        json.dumps({"tokens": {"anna": {**ENTRY, "allowance": {"jobs": True}}}}),
        json.dumps({"tokens": {"anna": {**ENTRY, "allowance": {"jobs": None}}}}),
        json.dumps({"tokens": {"anna": {**ENTRY, "allowance": {"wishes": 3}}}}),
    ],
)
def test_a_damaged_file_lets_no_guest_in(path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    """Only the owner comes in, the log has a sentence, once, and the file is not touched."""
    anna = add(path, "anna")
    tokens = Tokens(path)
    assert tokens.find(anna) is not None
    write(path, damage)
    with caplog.at_level(logging.ERROR):
        assert tokens.find(anna) is None
        assert tokens.find(load_token(path)) == Owner(OWNER)
    assert len(caplog.records) == 1
    assert "tokens.json is damaged" in caplog.text
    with pytest.raises(ValueError, match="is damaged"):
        add(path, "bob")
    assert guests_beside(path).read_text() == damage


def test_a_file_that_others_can_change_lets_no_guest_in(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Until it is protected again."""
    anna = add(path, "anna")
    tokens = Tokens(path)
    guests_beside(path).chmod(0o666)
    assert tokens.find(anna) is None
    assert "chmod 600" in caplog.text
    guests_beside(path).chmod(0o600)
    assert tokens.find(anna) is not None


def test_two_changes_at_once_do_not_undo_each_other(path: Path) -> None:
    """The second one is refused, and the first one is there."""
    with changing(guests_beside(path)) as guests:
        guests["anna"] = Guest("0" * 64)
        with pytest.raises(FileExistsError):
            add(path, "bob")
    assert list(read_guests(guests_beside(path))) == ["anna"]


def test_a_change_that_fails_changes_nothing(path: Path) -> None:
    """The old file stays whole, and the next change is not in the way of anything."""
    add(path, "anna")
    with pytest.raises(KeyError), changing(guests_beside(path)) as guests:
        del guests["anna"], guests["bob"]
    assert list(read_guests(guests_beside(path))) == ["anna"]
    add(path, "bob")


@pytest.mark.parametrize("stored", [{}, {"jobs": 3}, {"work_per_day": None}, Allowance().to_json(), SMALL.to_json()])
def test_an_allowance_survives(stored: Mapping[str, int | None]) -> None:
    """What is written is read; what is not written is as without a word."""
    assert Allowance.from_json(stored).to_json() == {**Allowance().to_json(), **stored}
