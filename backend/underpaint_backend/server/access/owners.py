"""Who holds a token, and what that person may have and do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OWNER = "owner"
"""The name of the daemon's own user."""


@dataclass(frozen=True)
class Allowance:
    """What the holder of one token may have and do. All are at least 1.

    `connections` are open at once; `jobs` wait or run; `pixels` are of one request, its area times its pictures;
    `tile_bytes` are of pixels that wait with its jobs; `work_per_day` is in megapixel steps, a million pixels of a
    request taken one step further, for each of its pictures: None is without bound.
    """

    connections: int = 32
    jobs: int = 64
    pixels: int = 16 << 20
    tile_bytes: int = 1 << 30
    work_per_day: int | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Allowance:
        """The allowance that `to_json` wrote. Raises `ValueError` if it is none."""
        known = {field.name for field in dataclasses.fields(cls)}
        if not stored.keys() <= known:
            raise ValueError(f"there is no allowance called {', '.join(sorted(stored.keys() - known))}")
        for name, value in stored.items():
            if not (name == "work_per_day" and value is None) and not (type(value) is int and value >= 1):
                raise ValueError(f"{name} must be a number of at least 1; it was {value!r}")
        return cls(**stored)

    def to_json(self) -> dict[str, int | None]:
        """The same as plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Owner:
    """The holder of a token. Jobs belong to the name: whoever has the same token is the same owner."""

    name: str
    allowance: Allowance = Allowance()
    digest: str = field(default="", compare=False, repr=False)
    """Of the token, to tell it from a later one of the same name."""
