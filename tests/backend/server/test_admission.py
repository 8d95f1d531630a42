"""What may be done now, and what has to wait."""

from __future__ import annotations

from dataclasses import replace

import pytest
from underpaint_backend.server.admission import refuse_now, work_of
from underpaint_backend.server.sessions import Job, Session
from underpaint_protocol.messages import Limits, Model, Request, Submit

from tests.backend.server.calling import INPAINT

BYTES = sum(image.size for image in INPAINT.images)
LIMITS = Limits(1 << 24, 3, 8, 2 * BYTES, 3600, 30, 20)


def waiting(count: int) -> list[Job]:
    session = Session("0" * 32, "anna", "test")
    return [Job(session, Submit(str(number), INPAINT)) for number in range(count)]


@pytest.mark.parametrize(
    ("jobs", "work", "used", "limits", "expected"),
    [
        (1, 10, 10, LIMITS, None),
        (1, 11, 10, LIMITS, "allowance_used"),
        (1, 11, 10, replace(LIMITS, work_per_day=None), None),
        (2, 1, 0, LIMITS, "too_many_jobs"),
        (2, 1, 0, replace(LIMITS, max_tile_bytes=3 * BYTES), None),
        (3, 1, 0, replace(LIMITS, max_tile_bytes=9 * BYTES), "too_many_jobs"),
    ],
)
def test_what_is_too_much_has_to_wait(jobs: int, work: int, used: int, limits: Limits, expected: str | None) -> None:
    """Jobs, their bytes and the day's work are bounded, up to the bound and not beyond; it helps to come back."""
    reason = refuse_now(INPAINT, waiting(jobs), work, used, limits)
    assert (reason and reason.code) == expected
    assert reason is None or reason.retryable


def test_an_allowance_says_when_there_is_a_new_one() -> None:
    """Who has used up a day's work is told when the next one begins."""
    reason = refuse_now(INPAINT, [], 30, 10, LIMITS)
    assert reason is not None
    assert "00:00 UTC" in reason.hint


def test_work_is_area_times_pictures_times_steps() -> None:
    """Rounded up; a hybrid says itself how many steps it takes."""
    model = Model("m", "M", "f", ("text_to_image",), ("ddim", "ddpm"), 1 << 14, 8, 12, 2.5, "ddim")
    request = Request("m", "text_to_image", 1000, 1000, batch=2)
    assert work_of(request, model) == 24
    assert work_of(replace(request, steps=5), model) == 10
    assert work_of(replace(request, steps=5, scheduler="ddim:30+ddpm:20"), model) == 100
    assert work_of(Request("m", "text_to_image", 10, 10), model) == 1
