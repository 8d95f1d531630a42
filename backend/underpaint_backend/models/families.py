"""Which families of models there are, what parts they need, and what they cannot do, told without torch.

A family is a module of `engine/families`; one of which nothing is said here may be and do anything.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path

from underpaint_protocol.messages import Model

MODULES = Path(__file__).parents[1] / "engine" / "families"

NEEDED = {
    "stable_diffusion": ("unet", "vae", "text_encoder"),
    "stable_diffusion_xl": ("unet", "vae", "text_encoder", "text_encoder_2"),
    "flux1": ("transformer", "vae", "text_encoder", "text_encoder_2"),
    "flux2": ("transformer", "vae", "text_encoder"),
}
"""The networks of a model of each family."""

SEEING = ("image_encoder", "ip_adapter")
"""The parts with which a Stable Diffusion sees reference pictures."""
NEVER_EDIT = BLIND = ("stable_diffusion", "stable_diffusion_xl")
"""Families that follow no instructions, and those that see reference pictures only with the parts for it."""


@lru_cache
def known_families() -> tuple[str, ...]:
    """The names of all families."""
    return tuple(module.name for module in pkgutil.iter_modules([str(MODULES)]))


def lacking_in(family: str, parts: Collection[str]) -> str:
    """What a model of this family with these parts has not, in words that follow “has no”; "" if it has all."""
    gaps = [part for part in NEEDED.get(family, ()) if part not in parts]
    return f"{' and no '.join(gaps)}, without which a model of the family {family} cannot paint" if gaps else ""


def check_promises(model: Model) -> None:
    """Raises `ValueError` if there is no such family, or if none of its models does what this one is said to."""
    if model.family not in known_families():
        raise ValueError(f"there is no family “{model.family}”; there are {', '.join(known_families())}")
    if model.family in NEVER_EDIT and "edit" in model.tasks:
        raise ValueError(f"a model of the family {model.family} cannot follow instructions; take “edit” off its tasks")


def blindness(model: Model, parts: Iterable[str]) -> str:
    """Why a model with these parts cannot see the reference pictures that it is said to; "" if it can."""
    gaps = [part for part in SEEING if part not in parts] if model.max_references else []
    if model.family not in BLIND or not gaps:
        return ""
    return f"it has no {' and no '.join(gaps)} to see reference pictures with; let its max_references be 0"
