"""Cancelling in the middle of whatever is going on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from underpaint_backend.engine.cache import TensorCache
from underpaint_backend.engine.cancel import Cancelled, cancellable
from underpaint_backend.engine.library import LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, Source, paint
from underpaint_backend.models.catalog import SCHEDULERS

from tests.backend.engine.cancelling import SetAfter

POINTS = 4
"""Places at which each configuration is cancelled; 48 in all."""


def painting_with(scheduler: str) -> Painting:
    """A short painting into a random picture."""
    numbers = np.random.default_rng(0)
    coverage = np.zeros((32, 32), np.float32)
    coverage[8:24, 8:24] = 1
    return Painting(
        size=(32, 32),
        prompt="a red circle",
        negative_prompt="blue",
        guidance=3.0,
        scheduler=scheduler,
        steps=4,
        strength=0.9,
        seeds=(1, 2),
        source=Source(numbers.integers(0, 256, (32, 32, 3), np.uint8), coverage),
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("channels", [9, 4])
def test_cancelled_anywhere_leaves_no_trace(
    load_tiny: Callable[[int], LoadedModel], channels: int, scheduler: str
) -> None:
    """Cancelled at random points of encoding, denoising and decoding, a model paints the same picture afterwards."""
    model, painting = forgetful(load_tiny(channels)), painting_with(scheduler)
    phases: list[str] = []
    observer = Observer(phases.append, lambda step: None)
    never = SetAfter(float("inf"))
    expected = paint(model, painting, observer, never)

    for point in random.Random(scheduler).sample(range(never.asked), POINTS):
        with pytest.raises(Cancelled):
            paint(model, painting, observer, SetAfter(point))
        np.testing.assert_array_equal(paint(model, painting, observer, Event()), expected)


def test_every_phase_can_be_cancelled(tiny_plain: LoadedModel) -> None:
    """There are points in each phase: in the text encoder, the VAE's encoder, the UNet and the VAE's decoder."""
    model, painting = forgetful(tiny_plain), painting_with("ddim")
    asked: dict[str, int] = {}
    never = SetAfter(float("inf"))

    def on_phase(phase: str) -> None:
        asked[phase] = never.asked

    paint(model, painting, Observer(on_phase, lambda step: None), never)

    assert asked["encoding"] < asked["denoising"] < asked["decoding"] < never.asked
    per_pass = (asked["decoding"] - asked["denoising"]) / 4
    assert per_pass > 20


def test_no_hooks_stay(tiny_plain: LoadedModel) -> None:
    """After a run, cancelled or not, nothing is left on the networks."""
    with pytest.raises(Cancelled):
        paint(tiny_plain, painting_with("ddim"), Observer(lambda phase: None, lambda step: None), SetAfter(40))

    for network in tiny_plain.family.networks:
        assert not any(module._forward_pre_hooks for module in network.modules())


def test_cancelled_before_it_began() -> None:
    """A context whose event is set already does not begin."""
    event = Event()
    event.set()

    with pytest.raises(Cancelled), cancellable([torch.nn.Identity()], event):
        pytest.fail("it began")


def test_libraries_cannot_swallow_it() -> None:
    """`except Exception` does not catch it."""
    assert not issubclass(Cancelled, Exception)


def forgetful(model: LoadedModel) -> LoadedModel:
    """The model without caches, so that every run encodes everything."""
    return replace(model, prompts=TensorCache(0), pictures=TensorCache(0))
