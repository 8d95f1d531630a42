"""The schedulers by the names that artists know, for each kind of model, and the language of hybrids.

A hybrid is written `ddim:30+ddpm:20`: thirty steps of one scheduler, then twenty of another on the same noise levels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["diffusion", "flow"]
"""How a model was trained to see noise: with variance that is kept, or on straight lines from picture to noise."""

MOST_STEPS = 1000


@dataclass(frozen=True)
class Scheduler:
    """One scheduler: its `name` in requests, its `label` in a list, and a `hint` in a few words."""

    name: str
    label: str
    hint: str


DIFFUSION = (
    Scheduler("ddim", "DDIM", "Steady and repeatable; 20 to 50 steps."),
    Scheduler("ddpm", "DDPM", "Fresh noise at every step; rich detail, 50 steps and more."),
    Scheduler("pndm", "PNDM", "Stable Diffusion's first choice (PLMS); 25 to 50 steps."),
    Scheduler("euler", "Euler", "Simple and quick; 20 to 30 steps."),
    Scheduler("euler_a", "Euler a", "Fresh noise at every step; lively, changes with the number of steps."),
    Scheduler("heun", "Heun", "Two looks at every step: twice the time, more exact; 15 to 25 steps."),
    Scheduler("dpm++2m", "DPM++ 2M", "Good pictures in few steps; 15 to 25."),
    Scheduler("dpm++2m_karras", "DPM++ 2M Karras", "As DPM++ 2M, with more of the steps where detail is made."),
    Scheduler("dpm++sde", "DPM++ SDE", "DPM++ with fresh noise at every step; 20 to 30 steps."),
    Scheduler("unipc", "UniPC", "Corrects itself as it goes; good from 10 steps."),
    Scheduler("lcm", "LCM", "For models and LoRAs distilled for it; 4 to 8 steps, guidance near 1."),
)

FLOW = (
    Scheduler("euler", "Euler", "What flow models are made for; 4 steps if distilled, 20 to 50 otherwise."),
    Scheduler("heun", "Heun", "Two looks at every step: twice the time, more exact."),
    Scheduler("dpm++2m", "DPM++ 2M", "Learns from the step before; smooth from 15 steps."),
    Scheduler("unipc", "UniPC", "Corrects itself as it goes; good from 10 steps."),
)

OWN = "own"
"""The scheduler that a model came with, whatever it is: for pipelines that run as a whole, which may take no other."""

ALONE = frozenset({"dpm++2m_karras", "lcm", OWN})
"""Schedulers with noise levels of their own choice: they cannot share those of another in a hybrid."""

# Names hold plus signs too, but a number stands before those between stages.
_BETWEEN = re.compile(r"(?<=[0-9])\+")
_STAGE = re.compile(r"([^:]+):([1-9][0-9]{0,3})")


@dataclass(frozen=True)
class Stage:
    """A part of a hybrid: `steps` steps of the scheduler called `name`."""

    name: str
    steps: int


def names(kind: Kind) -> tuple[str, ...]:
    """The names of the schedulers for models of this kind."""
    return tuple(scheduler.name for scheduler in (DIFFUSION if kind == "diffusion" else FLOW))


def is_hybrid(name: str) -> bool:
    """Whether a name is meant as that of a hybrid. `parse_hybrid` says whether it is a good one."""
    return ":" in name


def steps_of(name: str, steps: int) -> int:
    """How many steps a job makes that asks for `steps` steps of the scheduler called `name`: a hybrid says it itself.

    The name may be wrong; then there are `steps`.
    """
    if not is_hybrid(name):
        return steps
    return sum(int(part) for part in re.findall(r":([0-9]{1,4})", name)) or steps


def parse_hybrid(name: str, known: Sequence[str]) -> tuple[Stage, ...]:
    """The stages of a hybrid, whose schedulers are among `known`.

    Raises `ValueError` that says what is wrong.
    """
    stages = []
    for part in _BETWEEN.split(name):
        if not part:
            raise ValueError("there is a + with nothing behind it")
        stage = _STAGE.fullmatch(part)
        if stage is None:
            raise ValueError(f"‘{part}’ is not a name, a colon and a number of steps from 1 to {MOST_STEPS}")
        stages.append(Stage(stage[1], int(stage[2])))
    return _checked(stages, known)


def _checked(stages: Sequence[Stage], known: Sequence[str]) -> tuple[Stage, ...]:
    if len(stages) < 2:
        raise ValueError("a hybrid has two parts or more")
    for stage in stages:
        if stage.name not in known:
            elsewhere = stage.name in (*names("diffusion"), *names("flow"))
            raise ValueError(
                f"‘{stage.name}’ is for models of another kind" if elsewhere else f"there is no ‘{stage.name}’"
            )
        if stage.name in ALONE:
            raise ValueError(f"‘{stage.name}’ has noise levels of its own and works alone only")
    for before, after in pairwise(stages):
        if before.name == after.name:
            raise ValueError(f"it switches from ‘{before.name}’ to itself")
    total = sum(stage.steps for stage in stages)
    if total > MOST_STEPS:
        raise ValueError(f"it has {total} steps, and at most {MOST_STEPS} can be made")
    return tuple(stages)
