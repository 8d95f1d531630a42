"""Schedulers by the names that artists know, made from the model's own scheduler configuration.

ddim     Song et al. 2020, arXiv:2010.02502          euler    Karras et al. 2022, arXiv:2206.00364, algorithm 2
ddpm     Ho et al. 2020, arXiv:2006.11239            dpm++2m  Lu et al. 2022, arXiv:2211.01095
pndm     Liu et al. 2022, arXiv:2202.09778           unipc    Zhao et al. 2023, arXiv:2302.04867

Flow models (Lipman et al. 2022, arXiv:2210.02747; Esser et al. 2024, arXiv:2403.03206) have noise levels of another
kind, and schedulers of their own under some of the same names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from .exceptions import UnknownScheduler
from .prediction import levels, of_flow

_SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    # Latents are not pictures: there is no range to clip them to.
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
    # Without its Runge-Kutta start, which takes nine more evaluations: "PLMS", as Stable Diffusion was released.
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "euler": (EulerDiscreteScheduler, {}),
    "dpm++2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": (UniPCMultistepScheduler, {}),
}

_FLOW_SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "euler": (FlowMatchEulerDiscreteScheduler, {}),
}

NAMES = tuple(_SCHEDULERS)
FLOW_NAMES = tuple(_FLOW_SCHEDULERS)


@dataclass(frozen=True)
class Schedule:
    """The noise levels that a run goes through, from noisy to clean, and the rule that leads from one to the next.

    A schedule carries the history of multistep schedulers: it serves one run.

    `scheduler` is a scheduler of diffusers; `timesteps` [N] holds those of its timesteps that are run, on the CPU, so
    that no step waits for the device.
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

        `strength`, above 0 and at most 1, is the share of the steps that are run, counted from the clean end as
        SDEdit does (Meng et al. 2021, arXiv:2108.01073); at least one is.

        Flow models only: `sigmas` [steps] are the noise levels before they are shifted, from 1 down; without them they
        are evenly spaced. `mu` is how far they are shifted, where the configuration leaves that to the picture's size.

        Raises `UnknownScheduler`.
        """
        scheduler = build(name, config)
        if of_flow(config):
            scheduler.set_timesteps(steps, device="cpu", sigmas=sigmas, mu=mu)
            # Rounded as FLUX does: the other way than Stable Diffusion.
            skipped = min(steps - 1, int(steps - steps * strength))
        else:
            # The offset moves all timesteps up: with one for each that was trained, the first would lie beyond them.
            steps = min(steps, scheduler.config.num_train_timesteps - scheduler.config.get("steps_offset", 0))
            scheduler.set_timesteps(steps, device="cpu")
            skipped = steps - max(1, int(steps * strength))
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped * scheduler.order)
        return cls(scheduler, scheduler.timesteps[skipped * scheduler.order :])

    def __len__(self) -> int:
        """Evaluations of the model."""
        return len(self.timesteps)

    def begin(self, noise: Tensor, source: Tensor | None = None) -> Tensor:
        """The latents to start from: `noise` [B, C, h, w], or `source` [B, C, h, w] made noisy with it."""
        if source is None:
            return noise * float(getattr(self.scheduler, "init_noise_sigma", 1))
        return self.noisy(source, noise, 0)

    def noisy(self, latents: Tensor, noise: Tensor, step: int) -> Tensor:
        """Clean latents [B, C, h, w] as noisy as the model expects them at the step of this number, from 0.

        After the last step that is not noisy at all.
        """
        if step >= len(self.timesteps):
            return latents
        kept, noisy = levels(
            self.scheduler, self.timesteps[step], (getattr(self.scheduler, "begin_index", 0) or 0) + step
        )
        return kept * latents + noisy * noise

    def scaled(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The latents [B, C, h, w] as the model wants to see them."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return latents
        scaled: Tensor = self.scheduler.scale_model_input(latents, timestep)
        return scaled

    def step(self, output: Tensor, timestep: Tensor, latents: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The latents [B, C, h, w] at the next, cleaner level.

        `output` [B, C, h, w] is what the model said. Schedulers that add noise take it from `generators`, one for
        each image of the batch.
        """
        options = {"generator": list(generators)} if self._adds_noise else {}
        stepped: Tensor = self.scheduler.step(output, timestep, latents, return_dict=False, **options)[0]
        return stepped

    @property
    def _adds_noise(self) -> bool:
        return "generator" in inspect.signature(self.scheduler.step).parameters


def build(name: str, config: Mapping[str, Any]) -> Any:
    """The diffusers scheduler called `name`, with the noise levels that the model was trained with.

    `config` is the content of the model's `scheduler_config.json`, which may be that of another scheduler.

    Raises `UnknownScheduler`.
    """
    known = _FLOW_SCHEDULERS if of_flow(config) else _SCHEDULERS
    if name not in known:
        raise UnknownScheduler(name, known)
    cls, settings = known[name]
    return cls.from_config(dict(config), **settings)
