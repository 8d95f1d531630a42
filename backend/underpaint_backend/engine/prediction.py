"""The clean latents that a model predicts at one step: what a preview shows.

Taken before the scheduler's step, so that it is the model's own prediction and nothing that lags behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor


class _Space(Enum):
    """How a scheduler mixes clean latents x0 and unit noise n."""

    PRESERVING = "x = a x0 + b n, a² + b² = 1"
    EXPLODING = "x = x0 + b n"
    FLOW = "x = (1 - b) x0 + b n"


def predict_x0(scheduler: Any, output: Tensor, timestep: Tensor, sample: Tensor) -> Tensor:
    """The clean latents [B, C, h, w], as float32.

    `output` [B, C, h, w] is what the model said about the noisy latents `sample` [B, C, h, w] at `timestep`. Call it
    before `scheduler.step`. `scheduler` is any first-order or multistep scheduler of diffusers.

    Raises `NotImplementedError` for kinds of predictions that are not known.
    """
    space = _space(scheduler)
    a, b = levels(scheduler, timestep, _index(scheduler, timestep))
    sample, output = sample.float(), output.float()
    kind = scheduler.config.get("prediction_type", "epsilon")
    if space is _Space.FLOW:
        return sample - b * output
    if kind == "sample":
        return output
    if kind == "epsilon":
        return (sample - b * output) / a
    if kind == "v_prediction":  # Salimans & Ho 2022, arXiv:2202.00512
        if space is _Space.EXPLODING:
            return sample / (b**2 + 1) - output * b / (b**2 + 1) ** 0.5
        return a * sample - b * output
    raise NotImplementedError(f"predictions of kind {kind!r}")


def of_flow(config: Mapping[str, Any]) -> bool:
    """Whether a scheduler configuration is that of a flow model."""
    return (
        str(config.get("_class_name", "")).startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )


def _space(scheduler: Any) -> _Space:
    name = type(scheduler).__name__
    if name.startswith("FlowMatch") or of_flow(scheduler.config):
        return _Space.FLOW
    if name.startswith("Euler"):
        return _Space.EXPLODING
    return _Space.PRESERVING


def levels(scheduler: Any, timestep: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """How much of the clean latents and how much unit noise a sample holds at `timestep`.

    That timestep is number `index` of the scheduler's.
    """
    space = _space(scheduler)
    if space is _Space.PRESERVING and not hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        kept = scheduler.alphas_cumprod[int(timestep)]
        return kept.sqrt(), (1 - kept).sqrt()
    sigma = scheduler.sigmas[index]
    if space is _Space.FLOW:
        return 1 - sigma, sigma
    if space is _Space.EXPLODING:
        return torch.ones_like(sigma), sigma
    a, b = scheduler._sigma_to_alpha_sigma_t(sigma)
    return a, b


def _index(scheduler: Any, timestep: Tensor) -> int:
    """Where in its noise levels the scheduler is. It knows by itself, except before its first step."""
    if not hasattr(scheduler, "step_index"):
        return 0  # ddim, ddpm and pndm go by the timestep alone
    for index in (scheduler.step_index, scheduler.begin_index):
        if index is not None:
            return int(index)
    return int(scheduler.index_for_timestep(timestep))
