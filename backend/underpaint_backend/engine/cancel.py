"""Cancelling inside a forward pass, and while a model is loaded: both ask, again and again, whether to go on."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .pieces import attention_in_pieces, copied, in_pieces
from .residency import Residency

RUN_AHEAD = 2
"""Blocks that may wait in a CUDA device's queue. Python fills the queue much faster than the device empties it, and a
block that was queued cannot be called back."""
IN_THIS_THREAD = "HF_DEACTIVATE_ASYNC_LOAD"
"""What transformers looks for, for each network that it reads."""


class Cancelled(BaseException):
    """The job was cancelled. Not an `Exception`, so that no library on the way swallows it."""


def check(cancelled: Event) -> None:
    """Raise `Cancelled` if the event is set."""
    if cancelled.is_set():
        raise Cancelled


@contextmanager
def cancellable(networks: Iterable[nn.Module], cancelled: Event) -> Iterator[Callable[[nn.Module], None]]:
    """Within this context, the networks raise `Cancelled` soon after the event is set, also in the middle of a pass.

    What it yields does the same for another network. All can be used again afterwards as if nothing had happened. It
    does not reach into networks that were compiled: their blocks call no hooks.
    """
    checkpoint = _Checkpoint(cancelled)
    with ExitStack() as undo:
        watched: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # one that makes room must not be kept here

        def watch(network: nn.Module) -> None:
            if network not in watched:
                watched.add(network)
                for part in _parts(network):
                    undo.callback(part.register_forward_pre_hook(checkpoint).remove)
                undo.callback(in_pieces(network, partial(check, cancelled)))

        for network in networks:
            watch(network)
        undo.enter_context(attention_in_pieces(partial(check, cancelled)))
        check(cancelled)
        yield watch


@contextmanager
def watching(residency: Residency, cancelled: Event) -> Iterator[None]:
    """Within this context, all that is done with networks of `residency`, read ones too, ends soon after the event."""
    with (
        cancellable((), cancelled) as watch,
        residency.watched(watch, partial(cancellable_loading, cancelled)),
    ):
        yield


@contextmanager
def cancellable_loading(cancelled: Event) -> Iterator[None]:
    """Within this context, whatever is done with tensors raises `Cancelled` once the event is set.

    For libraries that load weights: they ask nobody, but they touch thousands of tensors. They do so in this thread,
    as others cannot be asked either. Only for a process that does one thing at a time.
    """
    dtype, elsewhere = torch.get_default_dtype(), os.environ.get(IN_THIS_THREAD)
    os.environ[IN_THIS_THREAD] = "1"
    try:
        with _CheckedCalls(cancelled):
            yield
    finally:
        torch.set_default_dtype(dtype)  # diffusers changes it while it builds a network
        if elsewhere is None:
            del os.environ[IN_THIS_THREAD]
        else:
            os.environ[IN_THIS_THREAD] = elsewhere


class _CheckedCalls(TorchFunctionMode):
    """Asks before each call of a function of torch."""

    def __init__(self, cancelled: Event) -> None:
        super().__init__()
        self._cancelled = cancelled

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        check(self._cancelled)
        if function is torch.Tensor.to:
            return copied(partial(check, self._cancelled), *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _parts(network: nn.Module) -> list[nn.Module]:
    """The network, its repeated blocks at every depth, and what takes long on a CPU and a large picture."""
    parts = {network}
    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            parts.update(block for block in module if block is not None)  # diffusers' lists have gaps
        elif isinstance(module, (nn.Conv2d, nn.GroupNorm, nn.SiLU, nn.GELU)):
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
