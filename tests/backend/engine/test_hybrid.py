"""Hybrids: several schedulers in turn, which take over from each other without a jump."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch
from parities import MOST_PREVIEW_ERROR
from parities.oracle import preview_error
from torch import Tensor
from underpaint_backend.engine.denoise import denoise
from underpaint_backend.engine.exceptions import UnknownScheduler, WrongHybrid
from underpaint_backend.engine.schedulers import FLOW_NAMES, NAMES, Schedule, offered
from underpaint_backend.models.schedulers import ALONE, Stage, is_hybrid, parse_hybrid, steps_of

SHAPE = (2, 4, 8, 8)
SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
TRAILING = {**SD, "timestep_spacing": "trailing", "set_alpha_to_one": True}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
SHARING = sorted(set(NAMES) - ALONE)
STEADY = ("ddim", "euler", "heun", "dpm++2m", "unipc")
PAIRS = list(permutations(SHARING, 2))


@pytest.mark.parametrize("strength", [1.0, 0.6, 0.2])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_perfect_model_stays_perfect_across_the_switch(first: str, second: str, strength: float) -> None:
    """Whichever scheduler takes over from whichever, previews and the end are what the model knows, to 1e-5."""
    schedule = Schedule.of(f"{first}:5+{second}:6", SD, 1, strength)

    assert preview_error(schedule, SHAPE) <= MOST_PREVIEW_ERROR


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("name", ["ddim:5+ddpm:6", "ddpm:5+ddim:6", "ddim:4+euler:3+dpm++2m:5", "euler:6+ddim:5"])
def test_a_switch_between_uneven_steps_is_perfect_too(name: str, spacing: str, kind: str) -> None:
    """Where timesteps are rounded, each scheduler takes over where the one before it led."""
    config = {**TRAILING, "timestep_spacing": spacing, "prediction_type": kind}

    assert preview_error(Schedule.of(name, config, 1), SHAPE) <= MOST_PREVIEW_ERROR


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize(("first", "second"), list(permutations(FLOW_NAMES, 2)))
def test_flow_schedulers_take_over_from_each_other(first: str, second: str, strength: float) -> None:
    """The same for flow models."""
    schedule = Schedule.of(f"{first}:3+{second}:4", FLOW, 1, strength, mu=0.7)

    assert preview_error(schedule, SHAPE) <= MOST_PREVIEW_ERROR


@pytest.mark.parametrize("config", [SD, TRAILING])
@pytest.mark.parametrize(("first", "second"), list(permutations(STEADY, 2)))
def test_there_is_no_jump(first: str, second: str, config: dict[str, Any]) -> None:
    """Without error in the model, its every input, across the switch, is the mix that it was trained on."""
    x0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    schedule = Schedule.of(f"{first}:5+{second}:5", config, 1)
    latents = schedule.begin(noise, x0)
    for number, timestep in enumerate(schedule.timesteps):
        kept = float(schedule.scheduler.alphas_cumprod[int(timestep)])
        expected = math.sqrt(kept) * x0 + math.sqrt(1 - kept) * noise
        assert torch.allclose(schedule.scaled(latents, number), expected, atol=1e-4)
        latents = schedule.step(noise, latents, number, [])


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_the_second_begins_where_an_uneven_step_led(spacing: str) -> None:
    """DDIM steps evenly between timesteps that are rounded: what follows is told where that really led."""
    x0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    schedule = Schedule.of("ddim:1+euler:11", {**SD, "timestep_spacing": spacing}, 1)
    assert schedule.timesteps[:2].tolist() == [999, 999 - 1000 // 12]

    latents = schedule.step(noise, schedule.begin(noise, x0), 0, [])

    kept = float(schedule.scheduler.alphas_cumprod[int(schedule.timesteps[1])])
    expected = math.sqrt(kept) * x0 + math.sqrt(1 - kept) * noise
    assert torch.allclose(schedule.scaled(latents, 1), expected, atol=1e-4)


def test_levels_of_another_choice_are_not_mixed_in() -> None:
    """Karras' levels, where a configuration asks for them, lie between timesteps; a hybrid goes by the timesteps."""
    config = {**SD, "use_karras_sigmas": True}
    schedule = Schedule.of("euler:30+dpm++2m:30", config, 1)

    assert schedule.timesteps.tolist() == Schedule.of("euler", SD, 60).timesteps.tolist()
    assert preview_error(schedule, SHAPE) <= MOST_PREVIEW_ERROR


def test_timesteps_are_those_of_one_scheduler() -> None:
    """A hybrid goes through the noise levels of a single run of as many steps."""
    alone = Schedule.of("ddim", SD, 20).timesteps.tolist()

    for name in ("ddim:12+ddpm:8", "ddpm:12+ddim:8", "euler:5+ddim:15", "dpm++2m:7+unipc:6+ddim:7"):
        assert Schedule.of(name, SD, 1).timesteps.tolist() == alone


def test_the_first_scheduler_decides_where_none_counts_on_even_steps() -> None:
    """Whichever comes first lends its noise levels to those that follow."""
    alone = Schedule.of("dpm++2m", SD, 9).timesteps.tolist()

    assert Schedule.of("dpm++2m:5+euler:4", SD, 1).timesteps.tolist() == alone


@pytest.mark.parametrize(
    ("name", "evaluations"),
    [
        ("ddim:30+ddpm:20", 50),
        ("heun:5+ddim:5", 15),
        ("ddim:5+heun:5", 14),
        ("pndm:5+ddim:5", 11),
        ("ddim:9+pndm:1", 10),
        ("euler:1+heun:1+ddim:1", 4),
    ],
)
def test_length_counts_evaluations_of_the_model(name: str, evaluations: int) -> None:
    """Each stage counts as its scheduler does; the number of steps that was asked for beside it does not."""
    assert len(Schedule.of(name, SD, 7)) == evaluations


def test_strength_skips_stages() -> None:
    """Steps are left out at the noisy end, whichever scheduler they belong to."""
    full = Schedule.of("ddim:5+ddpm:5", SD, 1).timesteps.tolist()

    for strength, run in ((0.8, 8), (0.5, 5), (0.3, 3), (0.01, 1)):
        assert Schedule.of("ddim:5+ddpm:5", SD, 1, strength).timesteps.tolist() == full[-run:]


def test_steps_of_flow_are_spaced_for_all_of_them() -> None:
    """Levels that were given for another number of steps are laid out anew."""
    schedule = Schedule.of("euler:2+heun:2", FLOW, 9, mu=0.0, sigmas=[1 - step / 9 for step in range(9)])

    assert sorted(set(schedule.timesteps.tolist()), reverse=True) == pytest.approx([1000, 750, 500, 250])


def test_history_starts_afresh() -> None:
    """The first step after a switch knows nothing of what was predicted before it: it is the same as Euler's."""
    answers = torch.randn(6, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def seen(name: str) -> list[Tensor]:
        inputs: list[Tensor] = []

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            inputs.append(latents)
            return answers[len(inputs) - 1]

        schedule = Schedule.of(name, SD, 1)
        denoise(predict, schedule, schedule.begin(answers[5]), [], lambda step: None)
        return inputs

    afresh, euler = seen("dpm++2m:2+euler:1+dpm++2m:3"), seen("dpm++2m:2+euler:4")

    assert torch.allclose(afresh[4], euler[4], atol=1e-5)
    assert not torch.allclose(afresh[5], euler[5], atol=1e-2)


@pytest.mark.parametrize("name", ["ddim:3+ddpm:3", "euler_a:3+dpm++sde:3", "ddpm:2+heun:2+euler_a:2"])
def test_a_seed_gives_the_same_picture_in_every_batch(name: str) -> None:
    """Each image has its own stream of noise, through all stages."""

    def ends(seeds: list[int]) -> Tensor:
        schedule = Schedule.of(name, SD, 1)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.cat([torch.randn(1, 4, 8, 8, generator=generator) for generator in generators])
        return denoise(lambda seen, t: seen * 0.9, schedule, schedule.begin(noise), generators, lambda step: None)

    together = ends([3, 4, 5])

    assert torch.allclose(together, torch.cat([ends([seed]) for seed in (3, 4, 5)]), atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_the_most_steps() -> None:
    """A thousand steps in all, also of a model that has fewer because its timesteps are moved."""
    schedule = Schedule.of("ddim:600+ddpm:400", SD, 1)

    assert len(schedule) == 999
    assert preview_error(schedule, (1, 1, 2, 2)) <= MOST_PREVIEW_ERROR


def test_names_with_plus_signs_are_read() -> None:
    """The plus between stages is the one behind a number."""
    stages = (Stage("dpm++2m", 3), Stage("dpm++sde", 12), Stage("ddim", 985))
    assert parse_hybrid("dpm++2m:3+dpm++sde:12+ddim:985", NAMES) == stages


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ddim:30", "two parts"),
        ("ddim:30+", "a + with nothing behind it"),
        (":", "‘:’ is not"),
        ("+ddim:3+ddpm:3", "no ‘+ddim’"),
        ("ddim:3++ddpm:3", "no ‘+ddpm’"),
        ("ddim:3 + ddpm:3", "is not a name"),
        ("ddim:3+ddpm", "‘ddpm’ is not"),
        ("ddim:0+ddpm:3", "‘ddim:0’ is not"),
        ("ddim:03+ddpm:3", "‘ddim:03’ is not"),
        ("ddim:-3+ddpm:3", "is not a name"),
        ("ddim:1.5+ddpm:3", "is not a name"),
        ("ddim:³+ddpm:3", "is not a name"),
        ("DDIM:3+ddpm:3", "no ‘DDIM’"),
        ("guess:3+ddpm:3", "no ‘guess’"),
        ("ddim:3+ddim:3", "to itself"),
        ("ddim:900+ddpm:101", "1001 steps"),
        ("ddim:99999+ddpm:1", "is not a name"),
        ("ddim:3+lcm:3", "works alone"),
        ("dpm++2m_karras:3+ddim:3", "works alone"),
    ],
)
def test_nonsense_is_refused_with_a_reason(name: str, why: str) -> None:
    """Whatever is no hybrid is refused as a wrong one, with what is wrong with it and how it is written."""
    with pytest.raises(WrongHybrid) as caught:
        Schedule.of(name, SD, 12)

    assert caught.value.info.code == "wrong_hybrid"
    assert f"“{name}”" in caught.value.info.message
    assert "ddim:30+ddpm:20" in caught.value.info.hint
    assert why in caught.value.info.message
    assert "dpm++2m" in caught.value.info.hint


def test_what_is_not_offered_alone_is_not_offered_in_a_hybrid() -> None:
    """A scheduler that does not converge with a model does not with the help of another either."""
    assert "pndm" not in offered(TRAILING)
    with pytest.raises(UnknownScheduler):
        Schedule.of("ddim:3+pndm:3", TRAILING, 1)
    with pytest.raises(UnknownScheduler):
        Schedule.of("ddim:3+euler:3", FLOW, 1, mu=0.5)


def test_a_hybrid_says_how_many_steps_it_has() -> None:
    """The steps that are asked for count for a single scheduler, and where the name is nonsense."""
    assert steps_of("ddim:30+dpm++2m:20", 7) == 50
    assert steps_of("dpm++2m", 7) == 7
    assert steps_of("ddim:many", 7) == 7
    assert is_hybrid("ddim:30")
    assert not is_hybrid("dpm++2m_karras")
    assert parse_hybrid("ddim:3+euler:4", NAMES) == (Stage("ddim", 3), Stage("euler", 4))
