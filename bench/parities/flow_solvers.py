"""Solvers of rectified flow, written out from their papers: what parity is held against where no pipeline has them.

Each leads latents from noise, at the first of `levels`, to the picture, at the last, 0. `velocity` is the model.
After each of its evaluations, `keep` puts back what has to stay around a selection, as noisy as it is at that level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

Level: TypeAlias = float
Velocity: TypeAlias = Callable[[Tensor, Level], Tensor]
Keep: TypeAlias = Callable[[Tensor, Level], Tensor]


def euler(velocity: Velocity, latents: Tensor, levels: list[Level], keep: Keep) -> Tensor:
    for level, following in pairwise(levels):
        latents = keep(latents + (following - level) * velocity(latents, level), following)
    return latents


def heun(velocity: Velocity, latents: Tensor, levels: list[Level], keep: Keep) -> Tensor:
    """Karras et al. 2022, arXiv:2206.00364, algorithm 1, without churn; what is kept is restored at each evaluation."""
    for level, following in pairwise(levels):
        first = velocity(latents, level)
        ahead = keep(latents + (following - level) * first, following)
        if following == 0:
            return ahead
        mean = (first + velocity(ahead, following)) / 2
        latents = keep(latents + (following - level) * mean, following)
    return latents


def dpm(velocity: Velocity, latents: Tensor, levels: list[Level], keep: Keep) -> Tensor:
    """Lu et al. 2022, arXiv:2211.01095, algorithm 2, with alpha = 1 - sigma; the first and last steps are Euler's."""
    before: tuple[Tensor, float] | None = None
    for level, following in pairwise(levels):
        clean = latents - level * velocity(latents, level)
        latents, before = _dpm_step(latents, clean, before, level, following)
        latents = keep(latents, following)
    return latents


def unipc(velocity: Velocity, latents: Tensor, levels: list[Level], keep: Keep) -> Tensor:
    """Zhao et al. 2023, arXiv:2302.04867: diffusers' steps, on these levels."""
    scheduler = put_on(UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True), levels)
    for timestep, (level, following) in zip(scheduler.timesteps, pairwise(levels), strict=True):
        latents = keep(scheduler.step(velocity(latents, level), timestep, latents, return_dict=False)[0], following)
    return latents


def put_on(scheduler: Any, levels: list[Level]) -> Any:
    """A multistep scheduler of diffusers, on these levels instead of its own. UniPC can not begin at 1, only below."""
    scheduler.set_timesteps(len(levels) - 1)
    below = 1e-6 if isinstance(scheduler, UniPCMultistepScheduler) else 0
    scheduler.sigmas = torch.tensor([min(level, 1 - below) for level in levels])
    scheduler.timesteps = 1000 * torch.tensor(levels[:-1])
    return scheduler


def _dpm_step(
    latents: Tensor, clean: Tensor, before: tuple[Tensor, float] | None, level: Level, following: Level
) -> tuple[Tensor, tuple[Tensor, float]]:
    """The next latents, and what the step after needs: the clean latents and how far this one went in log(snr) / 2."""
    if following == 0:
        return clean, (clean, math.inf)
    went = _half_log_snr(following) - _half_log_snr(level)
    towards = clean
    if before is not None and math.isfinite(before[1]):
        towards = clean + (clean - before[0]) * went / before[1] / 2
    latents = following / level * latents + (1 - following) * -math.expm1(-went) * towards
    return latents, (clean, went)


def _half_log_snr(level: Level) -> float:
    return math.inf if level == 0 else -math.inf if level == 1 else math.log((1 - level) / level)


SOLVERS: dict[str, Callable[[Velocity, Tensor, list[Level], Keep], Tensor]] = {
    "euler": euler,
    "heun": heun,
    "dpm++2m": dpm,
    "unipc": unipc,
}
