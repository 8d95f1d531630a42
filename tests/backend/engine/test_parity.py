"""Our loop gives the same latents as the classic pipelines of diffusers, and previews what the model predicts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import pytest
from parities import MOST_DIFFERENCE, MOST_PREVIEW_ERROR, Case, unet
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
