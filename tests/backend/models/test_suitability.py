"""What a model cannot do is refused before anything is loaded, and the reason says what helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from underpaint_backend.models.schedulers import OWN, parse_hybrid
from underpaint_backend.models.suitability import reason_to_refuse
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Model, Request

IMAGE, _ = image_of(32, 32, 4, bytes(32 * 32 * 4))
OTHER, _ = image_of(40, 24, 3, bytes(40 * 24 * 3))
GREY, _ = image_of(32, 32, 1, bytes(32 * 32))
MODEL = Model(
    id="m",
    name="A model",
    family="f",
    tasks=("inpaint", "text_to_image", "image_to_image", "edit"),
    schedulers=("ddim", "ddpm", "dpm++2m"),
    native_area=1 << 14,
    size_multiple=8,
    default_steps=12,
    default_guidance=5.0,
    default_scheduler="ddim",
    max_references=4,
)
PLAIN = Request("m", "text_to_image", 32, 32)
INPAINT = Request("m", "inpaint", 32, 32, image=IMAGE, mask=GREY)


@pytest.mark.parametrize(
    "request_",
    [
        PLAIN,
        INPAINT,
        replace(INPAINT, task="edit", mask=None),
        replace(INPAINT, task="edit"),
        replace(INPAINT, task="image_to_image", mask=None),
        replace(PLAIN, references=(OTHER,) * 4),
        replace(PLAIN, scheduler="ddim:5+dpm++2m:3"),
    ],
)
def test_what_can_be_done_is_not_refused(request_: Request) -> None:
    """Each task with what it needs."""
    assert reason_to_refuse(request_, MODEL) is None


@pytest.mark.parametrize(
    ("code", "request_", "changes"),
    [
        ("model_absent", PLAIN, {"state": "absent", "download": 1 << 30}),
        ("model_unfit", PLAIN, {"state": "unfit", "detail": "it needs 24 GB of memory, and there are 8"}),
        ("unsupported_task", PLAIN, {"tasks": ("inpaint",)}),
        ("unknown_scheduler", replace(PLAIN, scheduler="heun"), {}),
        ("wrong_hybrid", replace(PLAIN, scheduler="ddim:5+heun:3"), {}),
        ("wrong_hybrid", replace(PLAIN, scheduler="ddim:0+ddpm:3"), {}),
        ("wrong_hybrid", replace(PLAIN, scheduler="ddim:5+ddpm:3", steps=25), {}),
        ("unknown_scheduler", replace(PLAIN, scheduler="ddim:5+ddpm:3"), {"schedulers": ("ddim", OWN)}),
        ("too_many_references", replace(PLAIN, references=(OTHER,) * 9), {}),
        ("too_many_references", replace(PLAIN, references=(OTHER,)), {"max_references": 0}),
        ("wrong_size", replace(PLAIN, width=7, height=7), {}),
        ("wrong_size", replace(PLAIN, width=10_000, height=10_000), {}),
        ("invalid_field", replace(INPAINT, mask=None), {}),
        ("invalid_field", replace(PLAIN, task="edit"), {}),
        ("invalid_field", replace(PLAIN, task="image_to_image"), {}),
        ("invalid_field", replace(INPAINT, task="image_to_image"), {}),
        ("invalid_field", replace(PLAIN, references=(GREY,)), {}),
        ("wrong_mask_size", replace(INPAINT, task="edit", mask=OTHER), {}),
    ],
)
def test_what_cannot_be_done_is_refused(code: str, request_: Request, changes: dict[str, Any]) -> None:
    """With a sentence that has no place left open."""
    reason = reason_to_refuse(request_, replace(MODEL, **changes))
    assert reason is not None
    assert reason.code == code
    assert "{" not in reason.message + reason.hint


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ddim:", "‘ddim:’ is not a name, a colon and a number of steps from 1 to 1000"),
        ("ddim:5", "a hybrid has two parts or more"),
        ("ddim:5+", "there is a + with nothing behind it"),
        ("ddim:5+ddpm", "‘ddpm’ is not a name"),
        ("ddim:x+ddpm:3", "‘ddim:x+ddpm:3’ is not a name"),
        ("ddim:0+ddpm:3", "‘ddim:0’ is not a name, a colon and a number of steps from 1"),
        ("ddim:5+ddim:3", "it switches from ‘ddim’ to itself"),
        ("ddim:5+abacus:3", "there is no ‘abacus’"),
        ("ddim:5+euler:3", "‘euler’ is for models of another kind"),
        ("ddim:999+ddpm:2", "it has 1001 steps, and at most 1000 can be made"),
    ],
)
def test_what_is_wrong_with_a_hybrid_is_said(name: str, why: str) -> None:
    """In a sentence of its own, with an example of what this model can do and all that it has."""
    reason = reason_to_refuse(replace(PLAIN, scheduler=name), MODEL)
    assert reason is not None
    assert reason.message.startswith(f"The schedulers “{name}” cannot be used in turn: {why}")
    assert "as in ddim:30+ddpm:20, from what this model has: ddim, ddpm, dpm++2m." in reason.hint


def test_a_hybrid_makes_as_many_steps_as_it_says() -> None:
    """Another number beside it is not passed over in silence; its own is no contradiction."""
    hybrid = replace(PLAIN, scheduler="ddim:5+ddpm:3")
    assert reason_to_refuse(replace(hybrid, steps=8), MODEL) is None

    reason = reason_to_refuse(replace(hybrid, steps=25), MODEL)

    assert reason is not None
    assert "it makes 8 steps, and 25 were asked for; leave that number away" in reason.message


def test_the_scheduler_that_a_model_came_with_can_be_asked_for() -> None:
    """By its name, and by naming none."""
    model = replace(MODEL, schedulers=(OWN,), default_scheduler=OWN)
    assert reason_to_refuse(replace(PLAIN, scheduler=OWN), model) is None
    assert reason_to_refuse(PLAIN, model) is None


@pytest.mark.parametrize("name", ["own:2+own:2", "own:2+euler:2", "euler:2+heun:2"])
@pytest.mark.parametrize("schedulers", [(OWN,), (OWN, "euler", "heun")])
def test_a_pipeline_with_a_loop_of_its_own_makes_no_hybrids(name: str, schedulers: tuple[str, ...]) -> None:
    """Whatever else it can be given."""
    reason = reason_to_refuse(replace(PLAIN, scheduler=name), replace(MODEL, schedulers=schedulers))
    assert reason is not None
    assert reason.code == "unknown_scheduler"


def test_a_scheduler_that_nobody_knows_is_no_part_of_a_hybrid() -> None:
    """Its noise levels are those of the model that it came with."""
    with pytest.raises(ValueError, match="works alone only"):
        parse_hybrid("own:2+euler:2", (OWN, "euler"))


@pytest.mark.parametrize(
    ("given", "most", "said"),
    [
        (1, 0, "takes no reference pictures, and 1 was given."),
        (2, 1, "takes at most 1 reference picture, and 2 were given."),
        (9, 4, "takes at most 4 reference pictures, and 9 were given."),
    ],
)
def test_references_are_counted_in_words(given: int, most: int, said: str) -> None:
    """One is one, and several are several."""
    reason = reason_to_refuse(replace(PLAIN, references=(OTHER,) * given), replace(MODEL, max_references=most))
    assert reason is not None
    assert reason.message.endswith(said)
