"""The daemon's secret: made once, kept in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def load_token(path: Path) -> str:
    """The token in `path`; on the first start one of 256 random bits is made and written there with mode 0600.

    Raises `PermissionError` if others may read an existing file, `ValueError` if it holds no token, and `OSError` if
    it cannot be read or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        _write(path, secrets.token_hex(32))
    return _read(path)


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
