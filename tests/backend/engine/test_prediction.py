"""The predicted clean latents, against a model that is always right."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from parities import MOST_PREVIEW_ERROR
from parities.oracle import Oracle, preview_error
from torch import Tensor
from underpaint_backend.engine.denoise import Step
from underpaint_backend.engine.prediction import predict_x0
from underpaint_backend.engine.schedulers import FLOW_NAMES, NAMES, Schedule, offered

SHAPE = (2, 4, 8, 8)
NOISE_LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
KINDS, SPACINGS = ("epsilon", "v_prediction", "sample"), ("leading", "trailing", "linspace")
CONFIGS = [
    {**NOISE_LEVELS, "prediction_type": kind, "timestep_spacing": spacing} for kind, spacing in product(KINDS, SPACINGS)
]
ZERO_SNR = {
    **NOISE_LEVELS,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
}
FLOW = "FlowMatchEulerDiscreteScheduler"
FLOW_CONFIGS = [{"_class_name": FLOW, "shift": 3.0}, {"_class_name": FLOW, "use_dynamic_shifting": True}]


def said(config: dict[str, Any]) -> str:
    """What tells a configuration from the others, for the ids of tests."""
    return " ".join(str(value) for name, value in config.items() if name not in NOISE_LEVELS)


@pytest.mark.parametrize("strength", [1.0, 0.55, 0.01])
@pytest.mark.parametrize(
    ("name", "config"),
    [(name, config) for config in [*CONFIGS, ZERO_SNR] for name in offered(config)],
    ids=lambda value: value if isinstance(value, str) else said(value),
)
def test_previews_of_a_perfect_model_are_perfect(name: str, config: dict[str, Any], strength: float) -> None:
    """At every evaluation of every scheduler offered, and at the end, latents are what the model knows, to 1e-5."""
    assert preview_error(Schedule.of(name, config, 12, strength), SHAPE) <= MOST_PREVIEW_ERROR


@pytest.mark.parametrize("strength", [1.0, 0.55, 0.01])
@pytest.mark.parametrize("config", FLOW_CONFIGS, ids=said)
@pytest.mark.parametrize("name", FLOW_NAMES)
def test_previews_of_a_perfect_flow_model_are_perfect(name: str, config: dict[str, Any], strength: float) -> None:
    """The same for flow models, whose answer is noise minus picture, also where levels are shifted by the size."""
    mu = 0.9 if config.get("use_dynamic_shifting") else None
    schedule = Schedule.of(name, config, 6, strength, mu=mu, sigmas=[1 - step / 6 for step in range(6)])

    assert preview_error(schedule, SHAPE) <= MOST_PREVIEW_ERROR


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_few_steps_are_enough_for_a_perfect_model(name: str, steps: int) -> None:
    """Schedulers that look back begin and end well where there is hardly anything to look back on."""
    config = {**NOISE_LEVELS, "timestep_spacing": "leading"}
    assert preview_error(Schedule.of(name, config, steps), SHAPE) <= MOST_PREVIEW_ERROR


@dataclass(frozen=True)
class Early(Schedule):
    """A schedule that takes what it sees for half as noisy as it is."""

    def x0(self, output: Tensor, latents: Tensor, number: int) -> Tensor:
        return latents - (latents - super().x0(output, latents, number)) / 2


@dataclass(frozen=True)
class Stopping(Schedule):
    """A schedule whose last step leads nowhere."""

    def step(self, output: Tensor, latents: Tensor, number: int, generators: Any) -> Tensor:
        stepped = super().step(output, latents, number, generators)
        return latents if number + 1 == len(self) else stepped


@pytest.mark.parametrize("cls", [Early, Stopping])
def test_errors_are_seen(cls: type[Schedule]) -> None:
    """Previews that are wrong, and a run that does not arrive, are far from what the model knows."""
    right = Schedule.of("euler", CONFIGS[0], 12)

    assert preview_error(cls(right.scheduler, right.timesteps), SHAPE) > 1e-3


@pytest.mark.parametrize("told", [False, True], ids=["begins anywhere", "told where to begin"])
@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(**NOISE_LEVELS, clip_sample=False),
        DDIMScheduler(**NOISE_LEVELS, clip_sample=False, prediction_type="sample"),
        PNDMScheduler(**NOISE_LEVELS, skip_prk_steps=True),
        EulerDiscreteScheduler(**NOISE_LEVELS, prediction_type="v_prediction"),
        EulerAncestralDiscreteScheduler(**NOISE_LEVELS),
        HeunDiscreteScheduler(**NOISE_LEVELS),
        DPMSolverMultistepScheduler(**NOISE_LEVELS, algorithm_type="sde-dpmsolver++"),
        DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
        UniPCMultistepScheduler(**NOISE_LEVELS, prediction_type="v_prediction"),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        FlowMatchHeunDiscreteScheduler(shift=3.0),
    ],
    ids=lambda scheduler: f"{type(scheduler).__name__} {scheduler.config.get('prediction_type', '')}",
)
def test_a_scheduler_that_another_drives_is_understood(scheduler: Any, told: bool) -> None:
    """A pipeline of diffusers, which keeps no count of its own, gets right previews at every evaluation."""
    scheduler.set_timesteps(12, device="cpu")
    if told and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    timesteps = scheduler.timesteps
    if scheduler.config.get("use_flow_sigmas"):  # its timesteps are cut to whole numbers
        timesteps = scheduler.sigmas[:-1] * 1000
    oracle = Oracle(Schedule(scheduler, timesteps), SHAPE, seed=0)
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    latents = latents * float(getattr(scheduler, "init_noise_sigma", 1))
    for exact, timestep in zip(timesteps, scheduler.timesteps, strict=True):
        seen = scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
        output = oracle.predict(seen, exact)
        x0 = predict_x0(scheduler, output, timestep, latents)
        assert oracle.error(Step(oracle.evaluations, len(timesteps), x0)) <= MOST_PREVIEW_ERROR
        latents = scheduler.step(output, timestep, latents, return_dict=False)[0]

    assert oracle.error_at_end(latents) <= MOST_PREVIEW_ERROR


def test_unknown_kinds_of_predictions_are_refused() -> None:
    """A prediction that is of no known kind is not guessed at."""
    scheduler = DDIMScheduler()
    scheduler.register_to_config(prediction_type="dreams")
    scheduler.set_timesteps(4)

    with pytest.raises(NotImplementedError, match="dreams"):
        predict_x0(scheduler, torch.zeros(SHAPE), scheduler.timesteps[0], torch.zeros(SHAPE))
