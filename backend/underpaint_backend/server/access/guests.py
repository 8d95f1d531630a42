"""The tokens with names: what the owner of a daemon gave to others. The file holds digests, never the tokens."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .owners import OWNER, Allowance

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
DIGEST = re.compile(r"[0-9a-f]{64}")

Guests = Mapping[str, "Guest"]


@dataclass(frozen=True)
class Guest:
    """One named token. `digest` is its SHA-256, 64 hexadecimal digits."""

    digest: str
    allowance: Allowance = Allowance()


def read_guests(path: Path) -> dict[str, Guest]:
    """The guests in `path` by name; none if there is no such file.

    Raises `PermissionError` if others may read or write it, `ValueError` if it is damaged, and `OSError` if it cannot
    be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise PermissionError(f"others can read {path}. Run: chmod 600 {path}")
    try:
        return {name: _guest(name, stored) for name, stored in dict(json.loads(text)["tokens"]).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). Mend it, or move it away and add its tokens anew") from None


@contextlib.contextmanager
def changing(path: Path) -> Iterator[dict[str, Guest]]:
    """The guests in `path`, to be changed inside the block; they are written when it ends without an exception.

    The new file is made beside the old one and takes its place in one go. It must not exist yet, so that of two who
    change the guests at the same time neither undoes what the other did.

    Raises what `read_guests` raises, and `FileExistsError` if somebody else is changing them.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            guests = read_guests(path)
            yield guests
            json.dump(_to_json(guests), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink()
        raise


def _to_json(guests: Guests) -> dict[str, Any]:
    stored = {name: {"sha256": guest.digest, "allowance": guest.allowance.to_json()} for name, guest in guests.items()}
    return {"tokens": stored}


def _guest(name: str, stored: Mapping[str, Any]) -> Guest:
    digest = stored["sha256"]
    if not NAME.fullmatch(name) or name == OWNER or not DIGEST.fullmatch(digest):
        raise ValueError(f"the entry {name[:64]!r} is no token")
    return Guest(digest, Allowance.from_json(stored.get("allowance", {})))
