"""Several schedulers in turn, on the noise levels of one: `ddim:30+ddpm:20`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.schedulers import Stage, of_flow, offered, parse_hybrid
from ..exceptions import WrongHybrid
from ..prediction import Level, space_of
from .levels import EVEN, evaluations, landing, put_on, put_on_timesteps, steps_of
from .recipes import build, flow_levels, most_steps, with_steps
from .schedule import Schedule, skipped

_EVEN_NAMES = ("ddim", "pndm")
# Levels of another choice than the timesteps', which a configuration may ask for.
_OWN_LEVELS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


@dataclass(frozen=True)
class Hybrid(Schedule):
    """Schedules in turn: each begins at the level of noise where the one before ends, without any history.

    `scheduler` is the first one's, and `timesteps` are those of all.
    """

    stages: tuple[Schedule, ...] = ()

    @classmethod
    def parse(
        cls,
        name: str,
        config: Mapping[str, Any],
        strength: float,
        *,
        mu: float | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> Schedule:
        """The schedule of the hybrid called `name`; see `Schedule.of`.

        Raises `WrongHybrid`.
        """
        try:
            stages = parse_hybrid(name, offered(config))
        except ValueError as error:
            raise WrongHybrid(name, str(error), offered(config)) from None
        made = _flow(stages, config, strength, mu, sigmas) if of_flow(config) else _diffusion(stages, config, strength)
        schedules = tuple(made)
        timesteps = torch.cat([schedule.timesteps.float() for schedule in schedules])
        return cls(schedules[0].scheduler, timesteps, schedules)

    def level(self, number: int) -> Level:
        stage, within = self._stage(number)
        return stage.level(within)

    def scaled(self, latents: Tensor, number: int) -> Tensor:
        stage, within = self._stage(number)
        return stage.scaled(latents, within)

    def x0(self, output: Tensor, latents: Tensor, number: int) -> Tensor:
        stage, within = self._stage(number)
        return stage.x0(output, latents, within)

    def step(self, output: Tensor, latents: Tensor, number: int, generators: Sequence[torch.Generator]) -> Tensor:
        stage, within = self._stage(number)
        stepped = stage.step(output, latents, within, generators)
        after, _ = self._stage(number + 1)
        if space_of(after.scheduler) is space_of(stage.scheduler):
            return stepped
        # The same level of noise is written at another scale there.
        return stepped * (after.level(0).clean / stage.level(within + 1).clean)

    def _stage(self, number: int) -> tuple[Schedule, int]:
        """The stage that this evaluation belongs to, and its number there."""
        for stage in self.stages[:-1]:
            if number < len(stage):
                return stage, number
            number -= len(stage)
        return self.stages[-1], number


def _spans(stages: Sequence[Stage], first: int, last: int) -> Iterator[tuple[str, int, int]]:
    """The scheduler, the first step and the last of each stage that has any of the steps `first` to before `last`."""
    end = 0
    for stage in stages:
        begin, end = max(end, first), min(end + stage.steps, last)
        if begin < end:
            yield stage.name, begin, end


def _diffusion(stages: Sequence[Stage], config: Mapping[str, Any], strength: float) -> Iterator[Schedule]:
    config = {**config, **dict.fromkeys(_OWN_LEVELS, False)}
    total = most_steps(config, sum(stage.steps for stage in stages))
    leader = next((stage.name for stage in stages if stage.name in _EVEN_NAMES), stages[0].name)
    timesteps = steps_of(with_steps(leader, config, total)).round().long()
    for name, first, last in _spans(stages, skipped(config, total, strength), total):
        scheduler = with_steps(name, config, total)
        if not isinstance(scheduler, EVEN):
            put_on_timesteps(scheduler, timesteps)
        schedule = Schedule(scheduler, evaluations(scheduler, first, last))
        yield schedule
        if isinstance(scheduler, EVEN) and last < total:
            # Where even steps do not meet the timesteps, the next scheduler takes over where they lead.
            timesteps = timesteps.clone()
            timesteps[last] = landing(scheduler, schedule.timesteps[-1])


def _flow(
    stages: Sequence[Stage],
    config: Mapping[str, Any],
    strength: float,
    mu: float | None,
    sigmas: Sequence[float] | None,
) -> Iterator[Schedule]:
    total = sum(stage.steps for stage in stages)
    if sigmas is not None and len(sigmas) != total:
        sigmas = [1 - step / total for step in range(total)]
    levels = flow_levels(config, total, mu, sigmas)
    for name, first, last in _spans(stages, skipped(config, total, strength), total):
        scheduler = build(name, config)
        scheduler.set_timesteps(total, device="cpu", **({"mu": mu} if name == "euler" else {}))
        put_on(scheduler, levels.timesteps, levels.sigmas)
        yield Schedule(scheduler, evaluations(scheduler, first, last))
