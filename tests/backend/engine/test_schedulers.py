"""Schedulers by name."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from parities import MOST_PREVIEW_ERROR
from parities.oracle import preview_error
from torch import Tensor
from underpaint_backend.engine.denoise import Surroundings, denoise
from underpaint_backend.engine.exceptions import UnknownScheduler
from underpaint_backend.engine.schedulers import FLOW_NAMES, NAMES, Schedule, build, offered, recipes

FLUX = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "shift": 3.0}
SIGMAS = [1.0, 0.75, 0.5, 0.25]
EULER_CONFIG = {"_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012}
SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
STEADY = ("ddim", "pndm", "euler", "heun", "dpm++2m", "dpm++2m_karras", "unipc")
"""Schedulers that add no noise."""
SPREAD = 0.5
"""How far the latents of the model in `answer` lie from 0: their standard deviation."""


def answer(schedule: Schedule, seen: Tensor, timestep: Tensor) -> Tensor:
    """What a model says that knows only that latents are normal, around 0: it has the best answer there is."""
    scheduler = schedule.scheduler
    if not hasattr(scheduler, "alphas_cumprod") or scheduler.config.get("use_flow_sigmas"):
        sigma = float(timestep) / 1000
        x0 = seen * (1 - sigma) * SPREAD**2 / ((1 - sigma) ** 2 * SPREAD**2 + sigma**2)
        return (seen - x0) / sigma
    kept = float(scheduler.alphas_cumprod[round(float(timestep))])
    x0 = seen * math.sqrt(kept) * SPREAD**2 / (kept * SPREAD**2 + 1 - kept)
    return (seen - math.sqrt(kept) * x0) / math.sqrt(1 - kept)


def run(schedule: Schedule, seeds: list[int], source: Tensor | None = None, side: int = 8) -> Tensor:
    """The end [B, 4, side, side] of a run with the model in `answer`."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.cat([torch.randn(1, 4, side, side, generator=generator) for generator in generators])
    begin = schedule.begin(noise, None if source is None else source.expand_as(noise))

    def predict(seen: Tensor, timestep: Tensor) -> Tensor:
        return answer(schedule, seen, timestep)

    return denoise(predict, schedule, begin, generators, lambda step: None)


@pytest.mark.parametrize(("names", "config"), [(NAMES, EULER_CONFIG), (FLOW_NAMES, FLUX)])
def test_every_name_can_be_built(names: tuple[str, ...], config: dict[str, Any]) -> None:
    """There is a scheduler behind every name that artists are shown."""
    assert offered(config) == names
    assert len({str(build(name, config)) for name in names}) == len(names)


def test_noise_levels_are_the_models_own() -> None:
    """Whatever scheduler a model was saved with, another one takes over its noise levels."""
    for name in NAMES:
        assert build(name, EULER_CONFIG).config.beta_end == 0.012


@pytest.mark.parametrize("config", [EULER_CONFIG, {**EULER_CONFIG, "clip_sample": True}])
def test_latents_are_never_clipped(config: dict[str, Any]) -> None:
    """Latents have no range, whether a configuration speaks of clipping or not."""
    for name in ("ddim", "ddpm", "heun", "lcm"):
        assert build(name, config).config.clip_sample is False


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


def test_flow_models_of_other_schedulers_keep_their_shift() -> None:
    """Other schedulers call Euler's `shift` `flow_shift`."""
    levels = [
        Schedule.of("heun", {"use_flow_sigmas": True, "flow_shift": 3.0}, 4, sigmas=SIGMAS).timesteps.tolist(),
        Schedule.of(
            "heun", {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, 4, sigmas=SIGMAS
        ).timesteps.tolist(),
    ]

    assert levels[0] == levels[1]
    assert levels[0][1] == pytest.approx(900)


def test_unipc_begins_below_pure_noise() -> None:
    """It takes the logarithm of what is left of the picture, which must not be nothing."""
    assert 0 < float(Schedule.of("unipc", FLUX, 4, mu=0.8, sigmas=SIGMAS).level(0).clean) < 1e-5


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


@pytest.mark.parametrize("name", NAMES)
def test_length_counts_evaluations_of_the_model(name: str) -> None:
    """Heun looks twice at every step but the last, PNDM at its first step; the others once at each."""
    extra = {"heun": 9, "pndm": 1}.get(name, 0)

    assert len(Schedule.of(name, SD, 10)) == 10 + extra
    assert len(Schedule.of(name, SD, 10, 0.5)) == 5 + {"heun": 4, "pndm": 1}.get(name, 0)
    assert len(Schedule.of(name, SD, 10, 0.01)) == 1


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_what_is_not_offered_does_not_converge(kind: str, spacing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scheduler that is withheld from a model fails with it, so that none is withheld without need."""
    config = {**SD, "prediction_type": kind, "timestep_spacing": spacing, "set_alpha_to_one": True}
    withheld = set(NAMES) - set(offered(config))
    for name in withheld:
        with pytest.raises(UnknownScheduler):
            Schedule.of(name, config, 12)

    monkeypatch.setattr(recipes, "offered", lambda config: NAMES)
    for name in withheld:
        try:
            error = preview_error(Schedule.of(name, config, 12), (1, 4, 8, 8))
        except (NotImplementedError, ValueError):
            continue
        assert error > MOST_PREVIEW_ERROR


def test_levels_are_those_of_the_training() -> None:
    """With zero terminal SNR (Lin et al. 2023), schedulers that cannot have such levels are not offered."""
    config = {**SD, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    trained = DDIMScheduler.from_config(config).alphas_cumprod

    assert set(offered(config)) == set(NAMES) - {"heun", "pndm"}
    for name in offered(config):
        assert torch.allclose(build(name, config).alphas_cumprod, trained, atol=1e-6)


@pytest.mark.parametrize("strength", [1.0, 0.75, 0.3])
@pytest.mark.parametrize("name", STEADY)
def test_latents_are_as_noisy_as_the_model_is_told(name: str, strength: float) -> None:
    """Without error in the model, its every input is exactly the mix that was trained at the timestep it is told."""
    x0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    schedule = Schedule.of(name, SD, 20, strength)
    latents = schedule.begin(noise, x0)
    for number, timestep in enumerate(schedule.timesteps):
        kept = float(schedule.scheduler.alphas_cumprod[int(timestep)])
        seen = schedule.scaled(latents, number)
        expected = math.sqrt(kept) * x0 + math.sqrt(1 - kept) * noise
        # Karras' levels lie between timesteps, and the model is told the nearest.
        assert torch.allclose(seen, expected, atol=0.02 if "karras" in name else 1e-4)
        latents = schedule.step(noise, latents, number, [])


@pytest.mark.parametrize("name", STEADY)
def test_more_steps_come_closer_to_the_right_picture(name: str) -> None:
    """The path from noise to picture is known for a normal distribution: all of it is scaled to the right spread."""
    truth = SPREAD * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    errors = []
    for steps in (10, 40):
        end = run(Schedule.of(name, {**SD, "set_alpha_to_one": True}, steps), [5])
        errors.append(float((end - truth).norm() / truth.norm()))

    assert errors[1] < min(0.7 * errors[0], 0.1)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(STEADY)))
def test_fresh_noise_keeps_the_spread_of_pictures(name: str) -> None:
    """With fresh noise at every step, pictures are as varied as those that the model was trained on."""
    end = run(Schedule.of(name, SD, 200), [5], side=64)
    # LCM goes to a prediction at every step, and the best prediction is less varied than what it predicts.
    assert float(end.std()) == pytest.approx(SPREAD, rel=0.5 if name == "lcm" else 0.05)


@pytest.mark.parametrize("name", FLOW_NAMES)
def test_more_steps_of_flow_come_closer_to_the_right_picture(name: str) -> None:
    """The same for flow models; whatever looks back or ahead is closer than Euler."""
    truth = SPREAD * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))

    def error(name: str, steps: int) -> float:
        sigmas = [1 - step / steps for step in range(steps)]
        end = run(Schedule.of(name, FLUX, steps, mu=0.5, sigmas=sigmas), [5])
        return float((end - truth).norm() / truth.norm())

    assert error(name, 40) < min(error(name, 10), 0.05)
    assert name == "euler" or error(name, 20) < error("euler", 20) / 2


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("name", FLOW_NAMES)
def test_all_flow_schedulers_go_through_the_same_levels(name: str, strength: float) -> None:
    """Shifted as far as the picture's size wants, not cut to whole timesteps, from the same level at any strength."""
    sigmas = [1 - step / 7 for step in range(7)]
    euler = Schedule.of("euler", FLUX, 7, strength, mu=1.1, sigmas=sigmas)
    schedule = Schedule.of(name, FLUX, 7, strength, mu=1.1, sigmas=sigmas)

    assert _steps(schedule) == _steps(euler)
    for number, timestep in enumerate(schedule.timesteps):
        assert float(schedule.level(number).noise) == pytest.approx(float(timestep) / 1000, abs=2e-6)


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize(("name", "config"), [*((name, FLUX) for name in FLOW_NAMES), *((name, SD) for name in NAMES)])
def test_surroundings_are_seen_as_noisy_as_the_rest(name: str, config: dict[str, Any], strength: float) -> None:
    """Around a selection, the model sees the picture at the level of noise that it is told, and it ends untouched."""
    picture, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    schedule = Schedule.of(name, config, 6, strength, mu=0.5)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    begin = schedule.begin(noise, picture)
    evaluations = 0

    def predict(seen: Tensor, timestep: Tensor) -> Tensor:
        nonlocal evaluations
        clean, noisy = schedule.level(evaluations)
        evaluations += 1
        scale = 1 if config is FLUX else 1 / math.hypot(float(clean), float(noisy))
        expected = (clean * picture + noisy * noise) * scale
        assert torch.allclose(seen[..., :2, :], expected[..., :2, :], atol=1e-4)
        return answer(schedule, seen, timestep)

    generators = [torch.Generator().manual_seed(3)]
    end = denoise(predict, schedule, begin, generators, lambda step: None, Surroundings(picture, noise, mask))

    assert torch.equal(end[..., :2, :], picture[..., :2, :])
    assert not torch.allclose(end[..., 2:6, 2:6], picture[..., 2:6, 2:6], atol=0.1)


@pytest.mark.parametrize(("name", "config"), [*((name, SD) for name in NAMES), *((name, FLUX) for name in FLOW_NAMES)])
def test_a_seed_gives_the_same_picture_in_every_batch(name: str, config: dict[str, Any]) -> None:
    """Each image has its own stream of noise: neither its neighbours nor their number change it."""
    alone = [run(Schedule.of(name, config, 6, mu=0.5), [seed]) for seed in (3, 4, 5)]
    together = run(Schedule.of(name, config, 6, mu=0.5), [3, 4, 5])

    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=0.1)


@pytest.mark.parametrize("steps", [150, 350, 501, 1000])
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"pndm", "lcm"}))
def test_many_steps_begin_at_pure_noise(name: str, steps: int) -> None:
    """However many steps there are, the first is told that there is hardly anything but noise, and the last is not."""
    schedule = Schedule.of(name, SD, steps)

    assert len(_steps(schedule)) >= steps - 1 or "karras" in name
    assert float(schedule.timesteps[0]) >= 900
    assert float(schedule.timesteps[-1]) <= 20
    assert preview_error(schedule, (1, 1, 2, 2)) <= MOST_PREVIEW_ERROR


def test_names_are_known_without_the_libraries() -> None:
    """Whoever only shows a list of schedulers waits for no import."""
    code = "import sys, underpaint_backend.models.schedulers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_more_steps_than_were_distilled() -> None:
    """A model that was distilled from 50 steps knows no others."""
    assert len(Schedule.of("lcm", SD, 80)) == 50
