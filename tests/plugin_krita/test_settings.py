"""Which server, and which token goes to it."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
from underpaint_krita import settings
from underpaint_krita.settings import DEFAULT_SERVER, Settings

LOCAL_TOKEN = "a" * 64
FAR = "wss://painting.example"


def test_a_new_user_gets_this_machine(home: Path) -> None:
    """Without settings, the server is the daemon of this machine and its token is found by itself."""
    (home / "token").write_text(LOCAL_TOKEN + "\n")
    assert settings.load().server == DEFAULT_SERVER
    assert settings.load().token() == LOCAL_TOKEN


@pytest.mark.parametrize("server", ["ws://127.0.0.1:9", "ws://localhost:8738", "ws://[::1]:8738"])
def test_the_local_token_goes_to_this_machine(home: Path, server: str) -> None:
    """Under any of its names."""
    (home / "token").write_text(LOCAL_TOKEN)
    assert Settings(server).token() == LOCAL_TOKEN


@pytest.mark.parametrize("server", [FAR, "ws://127.0.0.1.example:8738", "ws://localhost.example", "ws://[abc"])
def test_the_local_token_goes_nowhere_else(home: Path, server: str) -> None:
    """Another machine does not get it, however it is called."""
    (home / "token").write_text(LOCAL_TOKEN)
    assert Settings(server).token() == ""


def test_a_token_goes_to_its_own_server_only() -> None:
    """What was entered for one server is not sent to the next."""
    chosen = Settings().with_server(FAR, "secret")
    assert chosen.token() == "secret"
    assert chosen.with_server("wss://other.example", "").token() == ""
    assert chosen.with_server("wss://other.example", "").with_server(FAR, "secret").token() == "secret"


def test_an_empty_token_forgets() -> None:
    """Clearing the field removes the token."""
    assert Settings().with_server(FAR, "secret").with_server(FAR, " ").tokens == {}


def test_an_empty_address_is_this_machine() -> None:
    """So is one that was cleared."""
    assert Settings(FAR).with_server(" ", "").server == DEFAULT_SERVER


def test_settings_survive(home: Path) -> None:
    """What was saved is loaded."""
    chosen = Settings().with_server(FAR, "secret")
    settings.save(chosen)
    assert settings.load() == chosen


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_settings_are_private(home: Path) -> None:
    """They hold tokens, so others on the machine cannot read them."""
    settings.save(Settings().with_server(FAR, "secret"))
    assert stat.S_IMODE(settings.settings_file().stat().st_mode) == 0o600


def test_a_certificate_is_trusted_for_its_own_server_only() -> None:
    """What the artist said about one server says nothing about the next."""
    chosen = Settings().with_server(FAR, "secret").with_pin(FAR, "ab" * 32)
    assert chosen.pin() == "ab" * 32
    assert chosen.with_server("wss://other.example", "").pin() is None
    assert chosen.with_server("wss://other.example", "").with_server(FAR, "secret").pin() == "ab" * 32


def test_a_certificate_can_be_forgotten() -> None:
    """Then the artist is asked again; what is not there can be forgotten, too."""
    chosen = Settings(FAR).with_pin(FAR, "ab" * 32)
    assert chosen.without_pin("wss://other.example") == chosen
    assert chosen.without_pin(FAR).pin() is None


def test_trust_survives(home: Path) -> None:
    """The artist is asked once; settings of an earlier version, which asked nobody, are read as well."""
    chosen = Settings(FAR).with_pin(FAR, "ab" * 32)
    settings.save(chosen)
    assert settings.load() == chosen
    settings.settings_file().write_text('{"server": "wss://painting.example", "tokens": {}}')
    assert settings.load() == Settings(FAR)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"server": "x"}',
        '{"server": "x", "tokens": 3}',
        '{"server": "x", "tokens": {}, "pins": 3}',
        "null",
    ],
)
def test_damaged_settings_are_the_defaults(home: Path, damage: str) -> None:
    """A file that was cut off does not keep the docker from opening."""
    settings.settings_file().write_text(damage)
    assert settings.load() == Settings()
