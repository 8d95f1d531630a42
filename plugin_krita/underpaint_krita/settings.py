"""What the user chose about servers. Kept beside the token, readable by its owner alone, not in Krita's own settings:
those are attached to bug reports."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional
from urllib.parse import urlsplit

from ._vendor.underpaint_protocol import locations

DEFAULT_SERVER = f"ws://127.0.0.1:{locations.DEFAULT_PORT}"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """The server to use, and by server: the tokens that were entered, and the fingerprints that the artist trusts."""

    server: str = DEFAULT_SERVER
    tokens: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)

    def token(self) -> str:
        """The token for `server`: the one that was entered for it, else, on this machine, the daemon's own file.

        Empty if there is none.
        """
        entered = self.tokens.get(self.server)
        if entered is not None:
            return entered
        return _local_token() if is_local(self.server) else ""

    def with_server(self, server: str, token: str) -> Settings:
        """These settings for another server; an empty `token` forgets the one that was entered for it."""
        server = tidy(server)
        tokens = {name: value for name, value in self.tokens.items() if name != server}
        if token.strip():
            tokens[server] = token.strip()
        return replace(self, server=server, tokens=tokens)

    def pin(self) -> Optional[str]:
        """The fingerprint of the certificate that `server` has to show; None if the artist was not asked."""
        return self.pins.get(self.server)

    def with_pin(self, server: str, fingerprint: str) -> Settings:
        """These settings with one more certificate that is trusted, for `server` alone."""
        return replace(self, pins={**self.pins, server: fingerprint})

    def without_pin(self, server: str) -> Settings:
        """These settings, so that the artist is asked about `server` again."""
        return replace(self, pins={name: value for name, value in self.pins.items() if name != server})


def tidy(address: str) -> str:
    """The server that an artist means who types `address`; this machine's if there is nothing in it."""
    return address.strip().rstrip("/") or DEFAULT_SERVER


def is_local(server: str) -> bool:
    """Whether `server` is on this machine; what is no address is nowhere."""
    try:
        return urlsplit(server).hostname in LOOPBACK
    except ValueError:
        return False


def settings_file() -> Path:
    """Where the settings are kept."""
    return locations.data_folder() / "krita.json"


def load() -> Settings:
    """The settings of this user; the defaults if there are none or the file is damaged."""
    try:
        stored: Any = json.loads(settings_file().read_text(encoding="utf-8"))
        return Settings(str(stored["server"]), _words(stored["tokens"]), _words(stored.get("pins", {})))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Settings()


def save(settings: Settings) -> None:
    """Remember `settings`. Raises `OSError` if that is not possible; what was remembered before is whole then."""
    path = settings_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    stored = {"server": settings.server, "tokens": dict(settings.tokens), "pins": dict(settings.pins)}
    text = json.dumps(stored, indent=2)
    with open(draft, "w", encoding="utf-8", opener=_private) as file:
        file.write(text)
    os.replace(draft, path)


def _words(stored: Any) -> Dict[str, str]:
    return {str(name): str(value) for name, value in stored.items()}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _local_token() -> str:
    try:
        return locations.token_file().read_text(encoding="utf-8").strip()
    except OSError:
        return ""
