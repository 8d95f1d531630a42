"""Which scheduler of diffusers, set how, stands behind a name.

ddim     Song et al. 2020, arXiv:2010.02502          euler    Karras et al. 2022, arXiv:2206.00364, algorithm 2
ddpm     Ho et al. 2020, arXiv:2006.11239            heun     the same, algorithm 1
pndm     Liu et al. 2022, arXiv:2202.09778           euler_a  Euler with fresh noise, by Katherine Crowson
unipc    Zhao et al. 2023, arXiv:2302.04867          lcm      Luo et al. 2023, arXiv:2310.04378
dpm++2m, dpm++2m_karras, dpm++sde                    Lu et al. 2022, arXiv:2211.01095

Flow models (Lipman et al. 2022, arXiv:2210.02747; Esser et al. 2024, arXiv:2403.03206) have noise levels of another
kind, and schedulers of their own under some of the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from ...models import schedulers as known
from ...models.schedulers import of_flow, offered
from ..exceptions import UnknownScheduler

_DPM = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}

_DIFFUSION_RECIPES: dict[str, tuple[Any, dict[str, Any]]] = {
    # Latents are not pictures: there is no range to clip them to.
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
    # Without its Runge-Kutta start, which takes nine more evaluations: "PLMS", as Stable Diffusion was released.
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {"clip_sample": False}),
    "dpm++2m": (DPMSolverMultistepScheduler, _DPM),
    "dpm++2m_karras": (DPMSolverMultistepScheduler, {**_DPM, "use_karras_sigmas": True}),
    "dpm++sde": (DPMSolverMultistepScheduler, {**_DPM, "algorithm_type": "sde-dpmsolver++"}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {"clip_sample": False}),
}

_FLOW_RECIPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "euler": (FlowMatchEulerDiscreteScheduler, {}),
    "heun": (FlowMatchHeunDiscreteScheduler, {}),
    "dpm++2m": (DPMSolverMultistepScheduler, {**_DPM, **_FLOW}),
    "unipc": (UniPCMultistepScheduler, _FLOW),
}

NAMES = known.names("diffusion")
FLOW_NAMES = known.names("flow")

_MANY_STEPS = 100


def build(name: str, config: Mapping[str, Any]) -> Any:
    """The diffusers scheduler called `name`, with the noise levels that the model was trained with.

    `config` is the content of the model's `scheduler_config.json`, which may be that of another scheduler.

    Raises `UnknownScheduler`.
    """
    if name not in offered(config):
        raise UnknownScheduler(name, offered(config))
    if not of_flow(config):
        cls, settings = _DIFFUSION_RECIPES[name]
        return cls.from_config(dict(config), **settings)
    cls, settings = _FLOW_RECIPES[name]
    if name == "euler":
        return cls.from_config({"shift": config.get("flow_shift", 1.0), **config})
    # The others take their levels from Euler, and nothing else from the configuration.
    return cls(num_train_timesteps=config.get("num_train_timesteps", 1000), **settings)


def with_steps(name: str, config: Mapping[str, Any], steps: int) -> Any:
    """The scheduler called `name` of a diffusion model, going through as many noise levels of its own choice.

    There are fewer where the model was not trained with as many, or not distilled with as many.

    Raises `UnknownScheduler`.
    """
    scheduler = build(name, config)
    steps = most_steps(config, steps)
    if name == "lcm":
        steps = min(steps, scheduler.config.original_inference_steps)
    scheduler.set_timesteps(steps, device="cpu")
    trained = scheduler.config.num_train_timesteps
    if name != "pndm" and steps > _MANY_STEPS and not 0.9 * trained <= int(scheduler.timesteps[0]) < trained:
        # "Leading" timesteps lie whole numbers apart: with many, the first is nowhere near pure noise, or beyond it.
        scheduler = build(name, {**config, "timestep_spacing": "trailing"})
        scheduler.set_timesteps(steps, device="cpu")
    return scheduler


def most_steps(config: Mapping[str, Any], steps: int) -> int:
    """`steps`, or as many as a diffusion model can make."""
    # The offset moves all timesteps up: with one for each that was trained, the first would lie beyond them.
    return min(steps, int(config.get("num_train_timesteps", 1000)) - int(config.get("steps_offset", 0)))


def flow_levels(config: Mapping[str, Any], steps: int, mu: float | None, sigmas: Sequence[float] | None) -> Any:
    """Euler's scheduler for flow models, going through its noise levels; the others take theirs from it."""
    scheduler = build("euler", config)
    scheduler.set_timesteps(steps, device="cpu", sigmas=sigmas, mu=mu)
    return scheduler
