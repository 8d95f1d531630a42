"""Who may use the daemon: its owner, by a token made on the first start, and guests, by tokens with names.

The owner's token is kept as it is, in a file that only the owner can read, because the programs of the same user read
it too. Of a guest's token nothing but its digest is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from .guests import read_guests
from .owners import OWNER, Allowance, Owner
from .watched import Watched

__all__ = ["OWNER", "Allowance", "Owner", "Tokens", "digest_of", "guests_beside", "load_token", "make_token"]

GUESTS_FILE = "tokens.json"

Accepted = dict[str, Owner]
"""Owners by the digests of their tokens."""


def make_token() -> str:
    """256 random bits, as 64 hexadecimal digits."""
    return secrets.token_hex(32)


def digest_of(token: str) -> str:
    """What is kept of a guest's token.

    A fast hash is enough: nobody finds 256 random bits by trying, as one would find a password.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def load_token(path: Path) -> str:
    """The token in `path`; on the first start one of 256 random bits is made and written there with mode 0600.

    Raises `PermissionError` if others may read an existing file, `ValueError` if it holds no token, and `OSError` if
    it cannot be read or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        _write(path, make_token())
    return _read(path)


class Tokens:
    """All tokens that are accepted now.

    Both files are read again when they changed, so that a token can be added or revoked while the daemon runs. Of a
    file that is damaged no token is accepted until it is mended; the log says so.
    """

    def __init__(self, path: Path) -> None:
        """`path` is the owner's token; those of guests are in `tokens.json` beside it.

        Raises what `load_token` raises.
        """
        load_token(path)
        self._own = Watched[Accepted](path, _owner_in, {})
        self._guests = Watched[Accepted](guests_beside(path), _guests_in, {})

    def find(self, token: str) -> Owner | None:
        """Whose token this is; None if it is nobody's.

        It is compared with every digest there is, each in constant time, so that the time tells nothing.
        """
        digest = digest_of(token)
        found = None
        for known, owner in self._accepted().items():
            if hmac.compare_digest(known, digest):
                found = owner
        return found

    def digests(self) -> frozenset[str]:
        """Of all tokens that are accepted now."""
        return frozenset(self._accepted())

    def _accepted(self) -> Accepted:
        return {**self._own.value(), **self._guests.value()}


def guests_beside(path: Path) -> Path:
    """The file of the guests' digests, beside the owner's token in `path`."""
    return path.with_name(GUESTS_FILE)


def _owner_in(path: Path) -> Accepted:
    digest = digest_of(_read(path))
    return {digest: Owner(OWNER, digest=digest)}


def _guests_in(path: Path) -> Accepted:
    return {guest.digest: Owner(name, guest.allowance, guest.digest) for name, guest in read_guests(path).items()}


def _write(path: Path, token: str) -> None:
    """Put a token into `path` in one go, unless another daemon that starts at this moment was first."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(token + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _read(path: Path) -> str:
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise PermissionError(f"others can read {path}. Run: chmod 600 {path}")
    token = path.read_text(encoding="ascii", errors="replace").strip()
    if len(token) < 64 or not token.isalnum():
        raise ValueError(f"{path} holds no token. Delete it, and the next start makes a new one")
    return token
