"""Cancelling inside a forward pass, and while a model is loaded: both ask, again and again, whether to go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

RUN_AHEAD = 2
"""Blocks that may wait in a CUDA device's queue. Python fills the queue much faster than the device empties it, and a
block that was queued cannot be called back."""


class Cancelled(BaseException):
    """The job was cancelled. Not an `Exception`, so that no library on the way swallows it."""


def check(cancelled: Event) -> None:
    """Raise `Cancelled` if the event is set."""
    if cancelled.is_set():
        raise Cancelled


@contextmanager
def cancellable(networks: Iterable[nn.Module], cancelled: Event) -> Iterator[None]:
    """Within this context, the networks raise `Cancelled` soon after the event is set, also in the middle of a pass.

    The networks can be used again afterwards as if nothing had happened. It does not reach into networks that were
    compiled: their blocks call no hooks.
    """
    checkpoint = _Checkpoint(cancelled)
    hooks = [part.register_forward_pre_hook(checkpoint) for network in networks for part in _parts(network)]
    try:
        check(cancelled)
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def cancellable_loading(cancelled: Event) -> Iterator[None]:
    """Within this context, whatever is done with tensors raises `Cancelled` once the event is set.

    For libraries that load weights: they ask nobody, but they touch thousands of tensors.
    """
    dtype = torch.get_default_dtype()
    try:
        with _CheckedCalls(cancelled):
            yield
    finally:
        torch.set_default_dtype(dtype)  # diffusers changes it while it builds a network


class _CheckedCalls(TorchFunctionMode):
    """Asks before each call of a function of torch."""

    def __init__(self, cancelled: Event) -> None:
        super().__init__()
        self._cancelled = cancelled

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        check(self._cancelled)
        return function(*args, **(kwargs or {}))


def _parts(network: nn.Module) -> list[nn.Module]:
    """The network, its repeated blocks at every depth, and its convolutions, which can take long on a CPU."""
    parts = {network}
    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            parts.update(block for block in module if block is not None)  # diffusers' lists have gaps
        elif isinstance(module, nn.Conv2d):
            parts.add(module)
    return list(parts)


class _Checkpoint:
    """What a block asks before it runs."""

    def __init__(self, cancelled: Event) -> None:
        self.cancelled = cancelled
        self._queued: deque[torch.cuda.Event] = deque()

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        check(self.cancelled)
        if any(isinstance(value, torch.Tensor) and value.is_cuda for value in inputs):
            self._wait_for_device()
            check(self.cancelled)

    def _wait_for_device(self) -> None:
        here = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        here.record()
        self._queued.append(here)
        if len(self._queued) > RUN_AHEAD:
            self._queued.popleft().synchronize()
