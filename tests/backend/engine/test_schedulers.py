"""Schedulers by name."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from underpaint_backend.engine.exceptions import UnknownScheduler
from underpaint_backend.engine.schedulers import FLOW_NAMES, NAMES, Schedule, build, offered

FLUX = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "shift": 3.0}
SIGMAS = [1.0, 0.75, 0.5, 0.25]
EULER_CONFIG = {"_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize(("names", "config"), [(NAMES, EULER_CONFIG), (FLOW_NAMES, FLUX)])
def test_every_name_can_be_built(names: tuple[str, ...], config: dict[str, Any]) -> None:
    """There is a scheduler behind every name that artists are shown."""
    assert offered(config) == names
    assert len({str(build(name, config)) for name in names}) == len(names)


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

    assert _steps(schedule) == _steps(full)[-round(10 * share) :]


def _steps(schedule: Schedule) -> list[float]:
    """Its timesteps, each once."""
    return list(dict.fromkeys(schedule.timesteps.tolist()))


@pytest.mark.parametrize("name", NAMES)
def test_as_many_steps_as_were_trained(name: str) -> None:
    """The largest number of steps that a request may name works, also with an offset."""
    schedule = Schedule.of(name, {"steps_offset": 1}, steps=1000)

    assert int(schedule.timesteps.max()) <= 999


@pytest.mark.parametrize("name", NAMES)
def test_begins_with_as_much_noise_as_the_first_step_expects(name: str) -> None:
    """A source that is all zero, made noisy, is about the pure noise of a run at full strength."""
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    schedule = Schedule.of(name, {"timestep_spacing": "leading" if name == "pndm" else "trailing"}, steps=1000)

    ratio = float(schedule.begin(noise, torch.zeros_like(noise)).std() / schedule.begin(noise).std())

    assert ratio == pytest.approx(1, abs=0.01)


def test_flow_models_have_names_of_their_own() -> None:
    """A scheduler of diffusion models is not offered for flow models."""
    with pytest.raises(UnknownScheduler) as caught:
        Schedule.of("ddim", FLUX, 4)

    assert "euler" in caught.value.info.hint
    assert "ddpm" not in caught.value.info.hint


@pytest.mark.parametrize(
    "config",
    [FLUX, {"use_flow_sigmas": True, "use_dynamic_shifting": True}, {"prediction_type": "flow_prediction"}],
)
def test_flow_models_are_known_by_their_configuration(config: dict[str, Any]) -> None:
    """Whatever class a flow model was saved with, its noise levels end at 1 and not in the thousands."""
    schedule = Schedule.of("euler", config, 4, mu=0.5, sigmas=SIGMAS)

    assert float(schedule.timesteps[0]) == pytest.approx(1000)
    assert float(schedule.scheduler.sigmas[0]) == pytest.approx(1)


def test_flow_levels_are_shifted_as_far_as_asked() -> None:
    """Esser et al. 2024, equation 23, with the shift as an exponent: e^mu / (e^mu + 1 / sigma - 1)."""
    schedule = Schedule.of("euler", FLUX, 4, mu=0.8, sigmas=SIGMAS)

    shifted = [math.exp(0.8) / (math.exp(0.8) + 1 / sigma - 1) for sigma in SIGMAS]
    assert (schedule.timesteps / 1000).tolist() == pytest.approx(shifted)


@pytest.mark.parametrize(("strength", "run"), [(1.0, 4), (0.9, 4), (0.75, 3), (0.6, 3), (0.5, 2), (1e-20, 1)])
def test_strength_rounds_up_for_flow_models(strength: float, run: int) -> None:
    """FLUX runs a step more where the strength falls between two; the source begins at the first level that is run."""
    schedule = Schedule.of("euler", FLUX, 4, strength, mu=0.8, sigmas=SIGMAS)
    source, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -3.0)

    assert len(schedule) == run
    sigma = float(schedule.timesteps[0]) / 1000
    assert float(schedule.begin(noise, source)) == pytest.approx(2 * (1 - sigma) - 3 * sigma)
    assert float(schedule.noisy(source, noise, run)) == 2
    assert torch.equal(schedule.begin(noise), noise)
