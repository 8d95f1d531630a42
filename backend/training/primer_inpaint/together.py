"""Several processes that train one network, each on pictures of its own.

On a machine where other programs run too, this is much faster than several threads in one process: threads wait for
each other after every operation, these processes only once a step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn


def run(processes: int, folder: Path, target: Callable[..., None], *arguments: Any) -> None:
    """Call `target(rank, *arguments)` in as many processes, one thread each, and wait for all of them."""
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    spawn(  # type: ignore[no-untyped-call]
        _entry, (processes, meeting, target, arguments), nprocs=processes
    )


def _entry(rank: int, processes: int, meeting: Path, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting.resolve().as_uri(), rank=rank, world_size=processes)
    target(rank, *arguments)
    dist.destroy_process_group()


def average_gradients(network: nn.Module, *numbers: float) -> list[float]:
    """Give all processes the mean of their gradients, and return the mean of the numbers, the same in all."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor(numbers)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
    return flat[start:].tolist()
