"""What a pipeline of diffusers does in a loop of its own, overheard at its scheduler and at its denoiser."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .denoise import Step
from .prediction import predict_x0


@contextmanager
def tapped(scheduler: Any, heard: Callable[[Step], None], done: Callable[[], None]) -> Iterator[None]:
    """Within this context, `heard` gets a `Step` for each evaluation of the model, before the scheduler uses it.

    Its `x0` has the shape in which the pipeline keeps its latents. `done` is called after the last step. The instance
    is patched and not its class, and keeps its signature: pipelines look there for what `step` takes.
    """
    step = scheduler.step
    signature = inspect.signature(step)
    number, total = 0, 0

    @functools.wraps(step)
    def overheard(*args: Any, **options: Any) -> Any:
        nonlocal number, total
        told = signature.bind(*args, **options).arguments
        number += 1
        total = total or _steps_from(scheduler, told["timestep"])
        heard(Step(number, max(number, total), _x0(scheduler, **told)))
        stepped = step(*args, **options)
        if number == total:
            done()
        return stepped

    scheduler.step = overheard
    try:
        yield
    finally:
        del scheduler.step


@contextmanager
def at_first_pass(network: nn.Module, begun: Callable[[], None]) -> Iterator[None]:
    """Within this context, `begun` is called when the network is asked for the first time."""

    def first(module: nn.Module, inputs: Any) -> None:
        hook.remove()
        begun()

    hook = network.register_forward_pre_hook(first)
    try:
        yield
    finally:
        hook.remove()


def _x0(scheduler: Any, model_output: Tensor, timestep: Any, sample: Tensor, **_: Any) -> Tensor:
    """What the model predicts. Of a scheduler that nobody knows, what it has so far."""
    if model_output.shape[1] == 2 * sample.shape[1]:
        model_output = model_output.chunk(2, dim=1)[0]  # the rest says how sure it is
    try:
        return predict_x0(scheduler, model_output, timestep, sample)
    except (AttributeError, NotImplementedError):
        return sample.float()


def _steps_from(scheduler: Any, timestep: Any) -> int:
    """Evaluations from this timestep to the end."""
    found = (scheduler.timesteps == timestep).nonzero()
    return len(scheduler.timesteps) - (int(found[0]) if len(found) else 0)
