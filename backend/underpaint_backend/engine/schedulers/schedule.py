"""What the denoising loop runs on: the noise levels of a run, and the rule that leads from one to the next."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.schedulers import is_hybrid, of_flow
from ..prediction import Level, x0_at
from .levels import evaluations, level, put_on, steps_of
from .recipes import build, flow_levels, with_steps


@dataclass(frozen=True)
class Schedule:
    """The noise levels that a run goes through, from noisy to clean, and the rule that leads from one to the next.

    A schedule carries the history of multistep schedulers: it serves one run.

    `scheduler` is a scheduler of diffusers; `timesteps` [N] holds one for each evaluation of the model, on the CPU, so
    that no step waits for the device. Evaluations are numbered from 0.
    """

    scheduler: Any
    timesteps: Tensor

    @classmethod
    def of(
        cls,
        name: str,
        config: Mapping[str, Any],
        steps: int,
        strength: float = 1.0,
        *,
        mu: float | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> Schedule:
        """The schedule of the scheduler called `name` for a model whose scheduler configuration is `config`.

        The name of a hybrid says itself how many steps there are. `strength`, above 0 and at most 1, is the share of
        the steps that are run, counted from the clean end as SDEdit does (Meng et al. 2021, arXiv:2108.01073); at
        least one is.

        Flow models only: `sigmas` [steps] are the noise levels before they are shifted, from 1 down; without them they
        are evenly spaced, and also in a hybrid of another number of steps. `mu` is how far they are shifted, where the
        configuration leaves that to the picture's size.

        Raises `UnknownScheduler`, and `WrongHybrid`, which is one, too.
        """
        if is_hybrid(name):
            from .hybrid import Hybrid  # a hybrid is made of schedules

            return Hybrid.parse(name, config, strength, mu=mu, sigmas=sigmas)
        if not of_flow(config):
            scheduler = with_steps(name, config, steps)
        else:
            scheduler = build(name, config)
            levels = flow_levels(config, steps, mu, sigmas)
            if name == "euler":
                scheduler = levels
            else:
                scheduler.set_timesteps(steps, device="cpu")
                put_on(scheduler, levels.timesteps, levels.sigmas)
        steps = len(steps_of(scheduler))
        return cls(scheduler, evaluations(scheduler, skipped(config, steps, strength), steps))

    def __len__(self) -> int:
        """Evaluations of the model."""
        return len(self.timesteps)

    def level(self, number: int) -> Level:
        """How noisy the latents are before this evaluation; number N stands for the end of the run."""
        return level(self.scheduler, self.timesteps, number)

    def begin(self, noise: Tensor, source: Tensor | None = None) -> Tensor:
        """The latents to start from: `noise` [B, C, h, w], or `source` [B, C, h, w] made noisy with it."""
        if source is None:
            return noise * float(getattr(self.scheduler, "init_noise_sigma", 1))
        return self.noisy(source, noise, 0)

    def noisy(self, latents: Tensor, noise: Tensor, number: int) -> Tensor:
        """Clean latents [B, C, h, w] as noisy as the model expects them at this evaluation.

        After the last evaluation that is not noisy at all.
        """
        if number >= len(self.timesteps):
            return latents
        kept, noisy = self.level(number)
        return kept * latents + noisy * noise

    def scaled(self, latents: Tensor, number: int) -> Tensor:
        """The latents [B, C, h, w] as the model wants to see them at this evaluation."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return latents
        scaled: Tensor = self.scheduler.scale_model_input(latents, self.timesteps[number])
        return scaled

    def x0(self, output: Tensor, latents: Tensor, number: int) -> Tensor:
        """The clean latents [B, C, h, w], float32, by what the model said, `output`, at this evaluation."""
        return x0_at(self.level(number), self.scheduler, output, latents)

    def step(self, output: Tensor, latents: Tensor, number: int, generators: Sequence[torch.Generator]) -> Tensor:
        """The latents [B, C, h, w] for the next evaluation.

        `output` [B, C, h, w] is what the model said at this one. Schedulers that add noise take it from `generators`,
        one for each image of the batch.
        """
        options = {"generator": list(generators)} if self._adds_noise else {}
        timestep = self.timesteps[number]
        stepped: Tensor = self.scheduler.step(output, timestep, latents, return_dict=False, **options)[0]
        return stepped

    @property
    def _adds_noise(self) -> bool:
        return "generator" in inspect.signature(self.scheduler.step).parameters


def skipped(config: Mapping[str, Any], steps: int, strength: float) -> int:
    """How many of the steps, at the noisy end, a run at this strength leaves out."""
    if of_flow(config):  # rounded as FLUX does: the other way than Stable Diffusion
        return min(steps - 1, int(steps - steps * strength))
    return steps - max(1, int(steps * strength))
