"""Schedulers by name."""

from __future__ import annotations

import pytest
import torch
from underpaint_backend.engine.exceptions import UnknownScheduler
from underpaint_backend.engine.schedulers import NAMES, Schedule, build
from underpaint_backend.models.catalog import SCHEDULERS

EULER_CONFIG = {"_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012}


def test_names_are_those_of_the_catalog() -> None:
    """The catalog offers exactly what the engine can build."""
    assert NAMES == SCHEDULERS


def test_noise_levels_are_the_models_own() -> None:
    """Whatever scheduler a model was saved with, another one takes over its noise levels."""
    for name in NAMES:
        assert build(name, EULER_CONFIG).config.beta_end == 0.012


def test_latents_are_never_clipped() -> None:
    """A configuration that does not speak of clipping does not cause any: latents have no range."""
    for name in ("ddim", "ddpm"):
        assert build(name, EULER_CONFIG).config.clip_sample is False


def test_unknown_names_are_refused() -> None:
    """An unknown name raises, and the error lists the known ones."""
    with pytest.raises(UnknownScheduler) as caught:
        build("guesswork", {})

    assert caught.value.info.code == "unknown_scheduler"
    assert "dpm++2m" in caught.value.info.hint


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("strength", "share"), [(1.0, 1.0), (0.5, 0.5), (0.01, 0.1)])
def test_strength_is_the_share_of_steps(name: str, strength: float, share: float) -> None:
    """As many steps are run as the strength says, and at least one."""
    full = Schedule.of(name, {}, steps=10)
    schedule = Schedule.of(name, {}, steps=10, strength=strength)

    assert len(schedule) == len(full) - round(10 * (1 - share))
    assert torch.equal(schedule.timesteps, full.timesteps[-len(schedule) :])


@pytest.mark.parametrize("name", NAMES)
def test_as_many_steps_as_were_trained(name: str) -> None:
    """The largest number of steps that a request may name works, also with an offset."""
    schedule = Schedule.of(name, {"steps_offset": 1}, steps=1000)

    assert int(schedule.timesteps.max()) <= 999


@pytest.mark.parametrize("name", NAMES)
def test_begins_with_as_much_noise_as_the_first_step_expects(name: str) -> None:
    """A source that is all zero, made noisy, is about the pure noise of a run at full strength."""
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    schedule = Schedule.of(name, {"timestep_spacing": "trailing"}, steps=10)

    ratio = float(schedule.begin(noise, torch.zeros_like(noise)).std() / schedule.begin(noise).std())

    assert ratio == pytest.approx(1, abs=0.01)
