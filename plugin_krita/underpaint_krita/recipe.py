"""How a picture was made, as it is kept with it."""

from __future__ import annotations

from typing import Any, Dict

from ._vendor.underpaint_protocol.messages import Request


def recipe_of(request: Request, seed: int) -> Dict[str, Any]:
    """What was asked for, without the pixels it was made of, and the `seed` that was used."""
    wire = request.to_wire()
    return {**{name: value for name, value in wire.items() if name not in ("image", "mask")}, "seed": seed}
