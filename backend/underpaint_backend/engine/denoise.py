"""The denoising loop, the same for every family of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from .schedulers import Schedule

Predict: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`(latents [B, C, h, w], timestep) -> output [B, C, h, w]`: the model with its prompts, after guidance."""


@dataclass(frozen=True)
class Step:
    """One evaluation of the model, `number` of `total`, counted from 1.

    `x0` [B, C, h, w], float32, holds the clean latents that the model predicts from where it stands.
    """

    number: int
    total: int
    x0: Tensor


@dataclass(frozen=True)
class Surroundings:
    """What stays as it is around a selection, for models that do not know masks.

    At each level, the latents outside the mask are replaced by the picture's own at that level of noise (Blended
    Latent Diffusion, Avrahami et al. 2022, arXiv:2206.02779).

    `latents` [1, C, h, w] are the picture's, `noise` [B, C, h, w] is what the run began with, and `mask` [1, 1, h, w]
    goes from 0, keep, to 1, paint.
    """

    latents: Tensor
    noise: Tensor
    mask: Tensor

    def around(self, painted: Tensor, kept: Tensor) -> Tensor:
        """`painted` [B, C, h, w] inside the mask and `kept` [B, C, h, w] outside."""
        return (1 - self.mask) * kept + self.mask * painted


def denoise(
    predict: Predict,
    schedule: Schedule,
    latents: Tensor,
    generators: Sequence[torch.Generator],
    on_step: Callable[[Step], None],
    surroundings: Surroundings | None = None,
) -> Tensor:
    """Lead `latents` [B, C, h, w] from noise to a picture and return them clean.

    `generators`, one for each image, feed the schedulers that add noise. `on_step` hears of every prediction before
    the step that uses it.
    """
    for number, timestep in enumerate(schedule.timesteps):
        output = predict(schedule.scaled(latents, number), timestep)

        x0 = schedule.x0(output, latents, number)
        if surroundings is not None:
            x0 = surroundings.around(x0, surroundings.latents)
        on_step(Step(number + 1, len(schedule), x0))

        latents = schedule.step(output, latents, number, generators)
        if surroundings is not None:
            kept = schedule.noisy(surroundings.latents, surroundings.noise, number + 1)
            latents = surroundings.around(latents, kept)
    return latents
