"""The clean latents that a model predicts at one step: what a preview shows.

Taken before the scheduler's step, so that it is the model's own prediction and nothing that lags behind.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..models.schedulers import of_flow

_EXPLODING = ("Euler", "Heun")


class Space(Enum):
    """How a scheduler mixes clean latents x0 and unit noise n."""

    PRESERVING = "x = a x0 + b n, a² + b² = 1"
    EXPLODING = "x = x0 + b n"
    FLOW = "x = (1 - b) x0 + b n"


class Level(NamedTuple):
    """A level of noise: how much of the clean latents and how much unit noise the noisy latents hold."""

    clean: Tensor
    noise: Tensor


def predict_x0(scheduler: Any, output: Tensor, timestep: Tensor, sample: Tensor) -> Tensor:
    """The clean latents [B, C, h, w], as float32.

    `output` [B, C, h, w] is what the model said about the noisy latents `sample` [B, C, h, w] at `timestep`. Call it
    before `scheduler.step`. `scheduler` is any first-order or multistep scheduler of diffusers, or one of Heun's.

    Raises `NotImplementedError` for kinds of predictions that are not known.
    """
    return x0_at(level_at(scheduler, timestep, _index(scheduler, timestep)), scheduler, output, sample)


def x0_at(level: Level, scheduler: Any, output: Tensor, sample: Tensor) -> Tensor:
    """The clean latents [B, C, h, w], as float32, where `sample` [B, C, h, w] is as noisy as `level` says.

    Raises `NotImplementedError` for kinds of predictions that are not known.
    """
    a, b = level
    sample, output = sample.float(), output.float()
    kind = scheduler.config.get("prediction_type", "epsilon")
    if space_of(scheduler) is Space.FLOW:
        return sample - b * output
    if kind == "sample":
        return output
    if kind == "epsilon":
        return (sample - b * output) / a
    if kind == "v_prediction":  # Salimans & Ho 2022, arXiv:2202.00512
        return (a * sample - b * output * (a**2 + b**2).sqrt()) / (a**2 + b**2)
    raise NotImplementedError(f"predictions of kind {kind!r}")


def space_of(scheduler: Any) -> Space:
    """How a scheduler of diffusers mixes clean latents and noise."""
    name = type(scheduler).__name__
    if name.startswith("FlowMatch") or of_flow(scheduler.config):
        return Space.FLOW
    return Space.EXPLODING if name.startswith(_EXPLODING) else Space.PRESERVING


def level_at(scheduler: Any, timestep: Tensor, index: int) -> Level:
    """The level of noise at `timestep`, which is number `index` of the scheduler's."""
    if not hasattr(scheduler, "sigmas"):  # ddim, ddpm, lcm and pndm go by the timestep alone
        return preserving(scheduler.alphas_cumprod[int(timestep)])
    return level_of(scheduler, scheduler.sigmas[index])


def level_of(scheduler: Any, sigma: Tensor) -> Level:
    """The level of noise that a scheduler means by `sigma`."""
    space = space_of(scheduler)
    if space is Space.FLOW:
        return Level(1 - sigma, sigma)
    if space is Space.EXPLODING:
        return Level(torch.ones_like(sigma), sigma)
    return Level(*scheduler._sigma_to_alpha_sigma_t(sigma))


def preserving(kept: Tensor) -> Level:
    """The level of noise where the clean latents keep the share `kept`, ᾱ, of the variance."""
    return Level(kept.sqrt(), (1 - kept).sqrt())


def _index(scheduler: Any, timestep: Tensor) -> int:
    """Where in its noise levels the scheduler is. It knows by itself, except before its first step."""
    if not hasattr(scheduler, "sigmas"):
        return 0
    for index in (scheduler.step_index, scheduler.begin_index):
        if index is not None:
            return int(index)
    return int(scheduler.index_for_timestep(timestep))
