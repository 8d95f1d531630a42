"""The noise levels that a scheduler of diffusers goes through, and how it is put on those of another."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, PNDMScheduler
from torch import Tensor

from ..prediction import Level, Space, level_at, level_of, preserving, space_of

EVEN = (DDIMScheduler, PNDMScheduler)
"""Schedulers that count on even steps between timesteps."""

# So far below 1 a level must lie for UniPC, which takes the logarithm of what is left of the picture.
_BELOW_ONE = 1e-6


def steps_of(scheduler: Any) -> Tensor:
    """The timesteps [steps] between which `scheduler` steps, each once."""
    timesteps: Tensor = scheduler.timesteps
    if isinstance(scheduler, PNDMScheduler):
        return torch.cat([timesteps[:1], timesteps[2:]])
    return timesteps[:: scheduler.order]


def evaluations(scheduler: Any, first: int, last: int) -> Tensor:
    """The timesteps [evaluations of the model] of the steps `first` up to before `last`; the scheduler begins there."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first * scheduler.order)
    if isinstance(scheduler, PNDMScheduler):
        # It looks twice at where its first step leads, wherever it begins.
        steps = steps_of(scheduler)[first:last]
        return torch.cat([steps[:2], steps[1:]])
    timesteps: Tensor = scheduler.timesteps[first * scheduler.order : last * scheduler.order]
    return timesteps


def put_on(scheduler: Any, timesteps: Tensor, sigmas: Tensor) -> None:
    """Let `scheduler`, which must know of sigmas, step between these noise levels.

    `timesteps` [steps] are what the model is told, `sigmas` [steps + 1] are how noisy the latents are.
    """
    if space_of(scheduler) is Space.FLOW and hasattr(scheduler, "last_sample"):
        sigmas = sigmas.clamp(max=1 - _BELOW_ONE)
    if scheduler.order == 2:  # the two looks at a step are at its end and at the beginning of the next
        timesteps = torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)])
        sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    scheduler.timesteps, scheduler.sigmas = timesteps, sigmas


def put_on_timesteps(scheduler: Any, timesteps: Tensor) -> None:
    """Let `scheduler`, of a diffusion model and prepared for as many steps, step between whole `timesteps` [steps]."""
    if not hasattr(scheduler, "sigmas"):
        scheduler.timesteps = timesteps.long()
        return
    kept = scheduler.alphas_cumprod[timesteps.long()]
    sigmas = torch.cat([((1 - kept) / kept).sqrt(), scheduler.sigmas[-1:]])
    explodes = space_of(scheduler) is Space.EXPLODING
    put_on(scheduler, timesteps.float() if explodes else timesteps.long(), sigmas)


def level(scheduler: Any, timesteps: Tensor, number: int) -> Level:
    """The level of noise before evaluation `number`, from 0, of those at `timesteps` [N]; after the last for N."""
    begin = getattr(scheduler, "begin_index", None) or 0
    if hasattr(scheduler, "sigmas"):
        return level_of(scheduler, scheduler.sigmas[begin + number])
    if number < len(timesteps):
        return level_at(scheduler, timesteps[number], begin + number)
    landed = landing(scheduler, timesteps[-1])
    if landed >= 0:
        return preserving(scheduler.alphas_cumprod[landed])
    return preserving(scheduler.final_alpha_cumprod if isinstance(scheduler, EVEN) else torch.ones(()))


def landing(scheduler: Any, timestep: Tensor) -> int:
    """The timestep that a step from `timestep` leads to; below 0 for the end. Only for schedulers without sigmas."""
    if isinstance(scheduler, EVEN):
        return int(timestep) - int(scheduler.config.num_train_timesteps // scheduler.num_inference_steps)
    after = (scheduler.timesteps == timestep).nonzero()[0, 0] + 1
    return int(scheduler.timesteps[after]) if after < len(scheduler.timesteps) else -1
