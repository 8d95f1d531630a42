"""Our loop beside the classic pipelines of diffusers, on tiny models built from the real configurations.

A module here is one family: it builds the models and lists what is compared. `run.py bench parity` prints all of it,
and the tests hold each row to its bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

MOST_DIFFERENCE = 1e-4
"""Of final latents from the classic pipeline's, as a share of the length of these."""
MOST_PREVIEW_ERROR = 1e-5
"""Of any preview from the truth, where the model predicts perfectly, as a share of the length of the truth."""


@dataclass(frozen=True)
class Measured:
    """How far our final latents are from the classic pipeline's, and previews from the truth under a perfect model."""

    difference: float
    preview_error: float


@dataclass(frozen=True)
class Case:
    """One row: a family (and variant), a task and a scheduler, and what measures them."""

    family: str
    task: str
    scheduler: str
    measure: Callable[[], Measured]

    @property
    def name(self) -> str:
        """For the ids of tests."""
        return f"{self.family}-{self.task}-{self.scheduler}".replace(" ", "_")


def difference(ours: Tensor, theirs: Tensor) -> float:
    """How far two tensors lie apart, as a share of the length of the second."""
    return float((ours - theirs).norm() / theirs.norm())


@contextmanager
def most_likely_latents() -> Iterator[None]:
    """The classic pipelines draw a picture's latents at random; here they take the most likely ones, as we do."""
    drawn = DiagonalGaussianDistribution.sample
    DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mode()
    try:
        yield
    finally:
        DiagonalGaussianDistribution.sample = drawn
