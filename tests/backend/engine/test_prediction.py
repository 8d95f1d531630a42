"""The predicted clean latents, against a model that is always right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor
from underpaint_backend.engine.denoise import Step, denoise
from underpaint_backend.engine.prediction import predict_x0
from underpaint_backend.engine.schedulers import NAMES, Schedule

TOLERANCE = 1e-5
NOISE_LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
GENERATOR = torch.Generator().manual_seed(0)
X0 = torch.rand(2, 4, 8, 8, generator=GENERATOR) * 2 - 1
NOISE = torch.randn(2, 4, 8, 8, generator=GENERATOR)


def oracle(scheduler: Any, kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A network that knows `X0`. It was trained like every diffusion model: on √ᾱ x0 + √(1 - ᾱ) n."""
    kept = scheduler.alphas_cumprod.double().numpy()
    sigmas = np.sqrt((1 - kept) / kept)

    def predict(seen: Tensor, timestep: Tensor) -> Tensor:
        sigma = np.interp(float(timestep), np.arange(len(sigmas)), sigmas)
        a, b = 1 / np.sqrt(1 + sigma**2), sigma / np.sqrt(1 + sigma**2)
        noise = (seen.double() - a * X0) / b
        output = {"epsilon": noise, "v_prediction": a * noise - b * X0, "sample": X0.double()}[kind]
        return output.float()

    return predict


def run(schedule: Schedule, predict: Callable[[Tensor, Tensor], Tensor]) -> tuple[list[Step], Tensor]:
    """All predictions of a run, and where it ends."""
    steps: list[Step] = []
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    end = denoise(predict, schedule, schedule.begin(NOISE), generators, steps.append)
    return steps, end


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("name", NAMES)
def test_prediction_of_a_perfect_model_is_perfect(name: str, spacing: str, kind: str) -> None:
    """At every step of every scheduler, the prediction is what the model knows, to 1e-5."""
    config = {**NOISE_LEVELS, "prediction_type": kind, "timestep_spacing": spacing}
    schedule = Schedule.of(name, config, steps=12)

    steps, end = run(schedule, oracle(schedule.scheduler, kind))

    assert [step.number for step in steps] == list(range(1, len(schedule) + 1))
    assert max(float((step.x0 - X0).abs().max()) for step in steps) <= TOLERANCE
    assert float((end - X0).abs().mean()) < 0.15  # ddim and pndm stop one level short of clean


@pytest.mark.parametrize(
    ("scheduler", "kind"),
    [
        (DDIMScheduler(prediction_type="sample", clip_sample=False), "sample"),
        (EulerAncestralDiscreteScheduler(**NOISE_LEVELS), "epsilon"),
        (DPMSolverMultistepScheduler(**NOISE_LEVELS, algorithm_type="sde-dpmsolver++"), "epsilon"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_diffusion_schedulers(scheduler: Any, kind: str) -> None:
    """Schedulers that nobody chooses by name today are understood as well."""
    scheduler.set_timesteps(12, device="cpu")
    steps, _ = run(Schedule(scheduler, scheduler.timesteps), oracle(scheduler, kind))

    assert max(float((step.x0 - X0).abs().max()) for step in steps) <= TOLERANCE


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
        DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_flow_matching(scheduler: Any) -> None:
    """Flow models, whose output is noise minus picture, are understood."""
    scheduler.set_timesteps(12, device="cpu")
    latents = NOISE
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        velocity = ((latents.double() - X0) / float(sigma)).float()
        assert float((predict_x0(scheduler, velocity, timestep, latents) - X0).abs().max()) <= TOLERANCE
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]


def test_unknown_kinds_of_predictions_are_refused() -> None:
    """A prediction that is of no known kind is not guessed at."""
    scheduler = DDIMScheduler()
    scheduler.register_to_config(prediction_type="dreams")
    scheduler.set_timesteps(4)

    with pytest.raises(NotImplementedError, match="dreams"):
        predict_x0(scheduler, NOISE, scheduler.timesteps[0], NOISE)
