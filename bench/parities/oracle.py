"""A model that always predicts right, and how far the loop's previews and pictures are from what it knows.

It knows noise levels from the model's training and nothing of the code that it examines: what share of the clean
latents is left at a timestep follows from the betas (or, for flow models, from the timestep alone).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from underpaint_backend.engine.denoise import Step, denoise
from underpaint_backend.engine.prediction import Space, space_of
from underpaint_backend.engine.schedulers import Schedule


def preview_error(schedule: Schedule, shape: tuple[int, int, int, int], seed: int = 0) -> float:
    """The worst error of any preview, and of the end, where a model with this schedule predicts perfectly.

    The latents have this `shape` [B, C, h, w]. Errors are lengths, as shares of the length of the truth. Schedules
    that end a little short of clean (DDIM as Stable Diffusion configures it) must end at exactly that level of noise.
    The schedule is used up.
    """
    oracle = Oracle(schedule, shape, seed)
    errors: list[float] = []
    generators = [torch.Generator().manual_seed(seed + image) for image in range(shape[0])]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))
    begin = schedule.begin(noise, oracle.x0.float())
    end = denoise(oracle.predict, schedule, begin, generators, lambda step: errors.append(oracle.error(step)))
    errors.append(oracle.error_at_end(end))
    return max(errors)


class Oracle:
    """A model that knows the picture `x0` [B, C, h, w] that every run of this schedule leads to."""

    def __init__(self, schedule: Schedule, shape: tuple[int, int, int, int], seed: int) -> None:
        self.schedule = schedule
        self.x0 = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
        self.noise = torch.zeros(shape).double()
        self.evaluations = 0

    def predict(self, seen: Tensor, timestep: Tensor) -> Tensor:
        """The perfect answer to what the model sees at `timestep`; call it once for each evaluation, in order."""
        clean, noisy = self._shares(float(timestep))
        self.evaluations += 1
        self.noise = (seen.double() - clean * self.x0) / noisy
        if space_of(self.schedule.scheduler) is Space.FLOW:
            return (self.noise - self.x0).float()
        kind = self.schedule.scheduler.config.get("prediction_type", "epsilon")
        answers = {"epsilon": self.noise, "sample": self.x0, "v_prediction": clean * self.noise - noisy * self.x0}
        return answers[kind].float()

    def error(self, step: Step) -> float:
        """How far a preview is from the truth."""
        return self._distance(step.x0, self.x0)

    def error_at_end(self, latents: Tensor) -> float:
        """How far the end of a run is from the truth, or from what is left of it at the schedule's last level."""
        clean, noise = (float(share) for share in self.schedule.level(self.evaluations))
        return self._distance(latents, clean * self.x0 + noise * self.noise)

    def _distance(self, latents: Tensor, truth: Tensor) -> float:
        if not bool(latents.isfinite().all()):
            return float("inf")
        return float((latents.double() - truth).norm() / truth.norm())

    def _shares(self, timestep: float) -> tuple[float, float]:
        """How much of the clean latents and how much noise the model sees at a timestep."""
        scheduler: Any = self.schedule.scheduler
        if space_of(scheduler) is Space.FLOW:
            sigma = timestep / scheduler.config.num_train_timesteps
            return 1 - sigma, sigma
        kept = scheduler.alphas_cumprod.double().numpy()
        sigmas = np.sqrt((1 - kept) / np.maximum(kept, 1e-12))
        sigma = float(np.interp(timestep, np.arange(len(sigmas)), sigmas))
        if scheduler.config.get("use_karras_sigmas"):
            # The model is told the nearest whole timestep, but sees the level itself.
            clean, noise = (float(share) for share in self.schedule.level(self.evaluations))
            exact = float(np.interp(np.log(noise / clean), np.log(sigmas), np.arange(len(sigmas))))
            if abs(exact - timestep) <= 0.51:
                sigma = noise / clean
        return 1 / np.hypot(1, sigma), sigma / np.hypot(1, sigma)
