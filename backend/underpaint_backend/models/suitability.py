"""Whether a model can do what a request asks: one rule for the server, which asks first, and for the worker."""

from __future__ import annotations

from collections.abc import Sequence

from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.messages import Model, Request

from .schedulers import OWN, is_hybrid, parse_hybrid

SMALLEST_SIDE = 16
"""Pixels of a request's shorter side."""


def reason_to_refuse(request: Request, model: Model) -> ErrorInfo | None:
    """The first reason why `model` cannot do `request`; None if it can."""
    if model.state != "ready":
        return describe(f"model_{model.state}", model=model.id, detail=model.detail or "its files have to be fetched")
    if request.task not in model.tasks:
        task = request.task.replace("_", " ")
        return describe("unsupported_task", model=model.name, detail=f"its tasks do not include “{task}”")
    scheduler = request.scheduler or model.default_scheduler
    if not offers(model.schedulers, scheduler):
        return describe("unknown_scheduler", detail=scheduler, known=", ".join(model.schedulers))
    if len(request.references) > model.max_references:
        allowed = f"at most {model.max_references} reference pictures" if model.max_references else "no references"
        return describe(
            "too_many_references", model=model.name, detail=f"{allowed}, and there are {len(request.references)}"
        )
    return _reason_in_pictures(request)


def _reason_in_pictures(request: Request) -> ErrorInfo | None:
    image, mask = request.image, request.mask
    width, height = request.width, request.height
    if min(width, height) < SMALLEST_SIDE:
        return describe("wrong_size", detail=f"{width} × {height} px, and each side needs at least {SMALLEST_SIDE} px")
    if request.task == "inpaint" and (image is None or mask is None):
        return describe("invalid_field", detail="inpainting needs a picture and a selection mask")
    if request.task in ("image_to_image", "edit") and image is None:
        return describe("invalid_field", detail="there is no picture to change")
    if image is not None and (image.channels == 1 or (image.width, image.height) != (width, height)):
        return describe("invalid_field", detail=f"the picture must have colours and {width} × {height} px")
    if mask is not None and (mask.channels != 1 or (mask.width, mask.height) != (width, height)):
        detail = f"{mask.width} × {mask.height} px with {mask.channels} channels, for {width} × {height} px"
        return describe("wrong_mask_size", detail=detail)
    if any(reference.channels == 1 for reference in request.references):
        return describe("invalid_field", detail="a reference picture must have colours")
    return None


def offers(schedulers: Sequence[str], name: str) -> bool:
    """Whether a model with these schedulers has the one called `name`, or all of a hybrid as "ddim:30+ddpm:20".

    Hybrids run in our own loop, and models that can keep the scheduler they came with in the loop of their pipeline.
    """
    if not is_hybrid(name):
        return name in schedulers
    if OWN in schedulers:
        return False
    try:
        return bool(parse_hybrid(name, schedulers))
    except ValueError:
        return False
