"""Training by the clock: how far a stage is, what its learning rate is, what it saves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

SAVE_EVERY = 240.0
"""Seconds between two checkpoints."""


class Budget:
    """A stage's time in seconds, counted over all runs of it; pauses between runs do not count."""

    def __init__(self, seconds: float, used: float = 0.0) -> None:
        self.seconds = seconds
        self._used = used
        self._started = time.monotonic()

    @property
    def used(self) -> float:
        """Seconds used so far."""
        return self._used + time.monotonic() - self._started

    @property
    def fraction(self) -> float:
        """Share of the budget used, 0..1."""
        return min(self.used / self.seconds, 1.0)


WARM_UP = 0.02
"""Share of a budget in which the learning rate rises."""


def learning_rate(fraction: float, peak: float, hold: float = WARM_UP) -> float:
    """Linear warm-up to `peak`, kept until the fraction `hold`, then half a cosine down to a fiftieth of it."""
    if fraction < WARM_UP:
        return peak * max(fraction / WARM_UP, 0.02)
    wave = 0.5 + 0.5 * np.cos(np.pi * max(fraction - hold, 0) / (1 - hold))
    return float(peak * (0.02 + 0.98 * wave))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` for all parameters from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a crash leaves either the old or the new one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.rename(path)


def load(path: Path) -> dict[str, Any] | None:
    """The checkpoint, or None where there is none yet."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state
