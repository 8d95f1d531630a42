"""The schedulers by the names that artists know, for each kind of model, and the language of hybrids.

A hybrid is written `ddim:30+ddpm:20`: thirty steps of one scheduler, then twenty of another on the same noise levels.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from underpaint_protocol.errors import ErrorInfo, describe

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

WITHOUT_ZERO_SNR = frozenset({"pndm", "heun"})
"""Schedulers that cannot have the noise levels of models trained with zero terminal SNR (Lin et al. 2023,
arXiv:2305.08891), which are not what their betas say."""

NOTES = frozenset({"v_pred", "ztsnr"})
"""Tensors whose names alone count: by them trainers of SDXL say what it predicts, and from where its noise comes."""

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


def of_flow(config: Mapping[str, Any]) -> bool:
    """Whether a scheduler configuration is that of a flow model."""
    return (
        str(config.get("_class_name", "")).startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )


def offered(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the schedulers that lead a model with this scheduler configuration to its picture.

    `config` is the content of the model's `scheduler_config.json`.
    """
    if of_flow(config):
        return names("flow")
    return tuple(name for name in names("diffusion") if _converges(name, config))


def _converges(name: str, config: Mapping[str, Any]) -> bool:
    kind = config.get("prediction_type", "epsilon")
    if config.get("rescale_betas_zero_snr") and name in WITHOUT_ZERO_SNR:
        return False
    if name == "pndm":
        # It combines predictions of several steps, which only those of noise allow, and counts on even steps.
        return bool(kind == "epsilon" and config.get("timestep_spacing", "leading") == "leading")
    return not (name == "euler_a" and kind == "sample")  # which diffusers does not have


def noted_in(config: Mapping[str, Any], tensors: Container[str]) -> Mapping[str, Any]:
    """A scheduler configuration with what the `NOTES` among these tensors of a single file say of its model."""
    if "v_pred" not in tensors:
        return config
    return {**config, "prediction_type": "v_prediction", "rescale_betas_zero_snr": "ztsnr" in tensors}


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


def partners_in(known: Sequence[str]) -> tuple[str, ...]:
    """Those of these schedulers that a hybrid can be made of."""
    return tuple(name for name in known if name not in ALONE)


def hybrid_error(name: str, detail: str, known: Sequence[str]) -> ErrorInfo:
    """That the hybrid `name` cannot be used, and why; two or more of the schedulers `known` can."""
    first, second = partners_in(known)[:2]
    example = f"{first}:30+{second}:20"
    return describe("wrong_hybrid", scheduler=name, detail=detail, example=example, known=", ".join(known))


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
