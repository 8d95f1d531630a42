"""Schedulers of pipelines that run as a whole: their own, others by name, and whose fault an error is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from underpaint_backend.engine.exceptions import OutOfMemory, UnknownScheduler
from underpaint_backend.engine.library import LoadedModel
from underpaint_backend.models.schedulers import OWN

from tests.backend.engine.classic_pipelines import (
    FILTERS,
    PAINTING,
    instruct_pix2pix,
    opened,
    painted,
    write,
)

pytestmark = FILTERS


def test_schedulers_go_by_their_names(load_classic: Callable[[str], LoadedModel]) -> None:
    """The model's own scheduler can be exchanged for others, and no other name is taken."""
    model = load_classic("instruct_pix2pix")

    assert (painted(model) != painted(model, replace(PAINTING, scheduler="euler"))).any()
    np.testing.assert_array_equal(painted(model), painted(model, replace(PAINTING, scheduler="ddim")))
    with pytest.raises(UnknownScheduler):
        painted(model, replace(PAINTING, scheduler="guesswork"))


@pytest.mark.parametrize("name", ["heun", "dpm++2m", "ddim", "euler:2+heun:2"])
def test_a_scheduler_that_a_pipeline_refuses_is_said(load_classic: Callable[[str], LoadedModel], name: str) -> None:
    """Instead of what diffusers says about it; the model paints afterwards as before."""
    model = load_classic("chroma")
    expected = painted(model)
    with pytest.raises(UnknownScheduler) as caught:
        painted(model, replace(PAINTING, scheduler=name))
    assert f"“{name}”" in caught.value.info.message
    assert OWN in caught.value.info.hint
    np.testing.assert_array_equal(painted(model), expected)


@pytest.mark.parametrize(
    ("scheduler", "error", "expected"),
    [
        ("euler", ValueError("no such step"), UnknownScheduler),
        ("euler", torch.OutOfMemoryError("out of memory"), OutOfMemory),
        (OWN, ValueError("no such step"), ValueError),
    ],
)
def test_what_a_scheduler_raises_blames_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str, error: Exception, expected: type[Exception]
) -> None:
    """If it was chosen, and if it was not for want of memory."""

    def step(self: Any, model_output: Any, timestep: Any, sample: Any, **_: Any) -> Any:
        raise error

    for cls in (diffusers.EulerDiscreteScheduler, diffusers.DDIMScheduler):
        monkeypatch.setattr(cls, "step", step)
    model = opened(write(tmp_path / "tiny", instruct_pix2pix()))
    with pytest.raises(expected):
        painted(model, replace(PAINTING, scheduler=scheduler))
