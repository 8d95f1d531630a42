"""Our loop gives the same latents as the classic pipelines of diffusers, and previews what the model predicts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import pytest
from parities import MOST_DIFFERENCE, MOST_PREVIEW_ERROR, Case, flux1, unet
from parities.oracle import painting_error
from torch import Tensor
from underpaint_backend.engine import families
from underpaint_backend.engine.flow import unpack
from underpaint_backend.engine.schedulers import NAMES


def cover() -> Iterator[Case]:
    """All schedulers with each task of one family, and two with each task of the others; the bench runs every row."""
    rows = groupby(unet.cases(), key=lambda case: (case.family, case.task))
    for number, ((family, _task), group) in enumerate(rows):
        cases = list(group)
        two = dict.fromkeys((number + more) % len(cases) for more in (0, 5))
        yield from cases if family == "SD 1.5" else [cases[index] for index in two]


def test_every_scheduler_is_compared() -> None:
    """No scheduler that is offered is left out."""
    assert set(unet.CLASSIC) == set(NAMES)


@pytest.mark.parametrize("case", list(cover()), ids=lambda case: case.name)
def test_a_family_paints_what_the_classic_pipeline_paints(case: Case) -> None:
    """Final latents are the classic pipeline's, and under a perfect model every preview is the truth."""
    measured = case.measure()

    assert measured.difference <= MOST_DIFFERENCE
    assert measured.preview_error <= MOST_PREVIEW_ERROR


def test_a_family_that_mixes_up_what_its_network_says_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The previews that are measured are those of the family, around whose network alone the truth is put."""
    model = flux1.tiny_flux1("dev")
    painting = flux1.painting_of("dev", flux1.TEXT, "euler")
    assert painting_error(model, painting) <= MOST_PREVIEW_ERROR

    def mixed_up(tokens: Tensor, height: int, width: int) -> Tensor:
        return unpack(tokens.flip(1), height, width)

    monkeypatch.setattr(families.flux1, "unpack", mixed_up)
    assert painting_error(model, painting) > 0.1
