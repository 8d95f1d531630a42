"""Whether a model can do what a request asks: one rule for the server, which asks first, and for the worker."""

from __future__ import annotations

from collections.abc import Sequence

from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.messages import Model, Request

from .schedulers import OWN, hybrid_error, is_hybrid, parse_hybrid, partners_in

SMALLEST_SIDE = 16
"""Pixels of a request's shorter side, at least."""
LARGEST_AREA = 8192 * 8192
"""Square pixels of a request. What is painted is scaled up to it, and takes 2 GB on the way."""


def reason_to_refuse(request: Request, model: Model) -> ErrorInfo | None:
    """The first reason why `model` cannot do `request`; None if it can."""
    if model.state != "ready":
        return describe(f"model_{model.state}", model=model.id, detail=model.detail or "its files have to be fetched")
    if request.task not in model.tasks:
        task = request.task.replace("_", " ")
        return describe("unsupported_task", model=model.name, detail=f"its tasks do not include “{task}”")
    reason = _reason_in_scheduler(request.scheduler or model.default_scheduler, request.steps, model.schedulers)
    if reason is not None:
        return reason
    if len(request.references) > model.max_references:
        given, most = len(request.references), model.max_references
        allowed = f"at most {most} reference picture{'' if most == 1 else 's'}" if most else "no reference pictures"
        detail = f"{allowed}, and {given} {'was' if given == 1 else 'were'} given"
        return describe("too_many_references", model=model.name, detail=detail)
    return _reason_in_pictures(request)


def _reason_in_pictures(request: Request) -> ErrorInfo | None:
    image, mask = request.image, request.mask
    width, height = request.width, request.height
    if width * height > LARGEST_AREA:
        most = f"at most {LARGEST_AREA // 1_000_000} megapixels can be painted at once"
        return describe("wrong_size", detail=f"{width} × {height} px, and {most}")
    if min(width, height) < SMALLEST_SIDE:
        return describe("wrong_size", detail=f"{width} × {height} px, and each side needs at least {SMALLEST_SIDE} px")
    if request.task == "inpaint" and (image is None or mask is None):
        return describe("invalid_field", detail="inpainting needs a picture and a selection mask")
    if request.task in ("image_to_image", "edit") and image is None:
        return describe("invalid_field", detail="there is no picture to change")
    if request.task == "image_to_image" and mask is not None:
        return describe("invalid_field", detail="the whole picture is changed; a selection needs the task “inpaint”")
    if image is not None and (image.channels == 1 or (image.width, image.height) != (width, height)):
        return describe("invalid_field", detail=f"the picture must have colours and {width} × {height} px")
    if mask is not None and (mask.channels != 1 or (mask.width, mask.height) != (width, height)):
        detail = f"{mask.width} × {mask.height} px with {mask.channels} channels, for {width} × {height} px"
        return describe("wrong_mask_size", detail=detail)
    if any(reference.channels == 1 for reference in request.references):
        return describe("invalid_field", detail="a reference picture must have colours")
    return None


def _reason_in_scheduler(name: str, steps: int | None, known: Sequence[str]) -> ErrorInfo | None:
    """Why a model with the schedulers `known` cannot use the one called `name`, or a hybrid as "ddim:30+ddpm:20".

    A hybrid says itself how many steps it makes; `steps`, if there are any, must be as many. Hybrids run in our own
    loop, and models that can keep the scheduler they came with in the loop of their pipeline.
    """
    if not is_hybrid(name):
        return None if name in known else describe("unknown_scheduler", detail=name, known=", ".join(known))
    if OWN in known or len(partners_in(known)) < 2:
        return describe("unknown_scheduler", detail=name, known=", ".join(known))
    try:
        total = sum(stage.steps for stage in parse_hybrid(name, known))
        if steps not in (None, total):
            raise ValueError(f"it makes {total} steps, and {steps} were asked for; leave that number away")
    except ValueError as error:
        return hybrid_error(name, str(error), known)
    return None
