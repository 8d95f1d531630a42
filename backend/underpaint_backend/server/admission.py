"""Whether a request can be done here: checks that need the catalog and the limits, beyond those of single fields."""

from __future__ import annotations

from collections.abc import Mapping

from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.messages import Limits, Model, Request


def refuse(request: Request, models: Mapping[str, Model], limits: Limits) -> ErrorInfo | None:
    """The first reason why `request` cannot be done here; None if it can."""
    model = models.get(request.model)
    if model is None:
        return describe("unknown_model", detail=request.model)
    return _refuse_settings(request, model, limits) or _refuse_pixels(request, limits)


def _refuse_settings(request: Request, model: Model, limits: Limits) -> ErrorInfo | None:
    if request.task not in model.tasks:
        task = request.task.replace("_", " ")
        return describe("unsupported_task", model=model.name, detail=f"its tasks do not include “{task}”")
    if request.scheduler is not None and request.scheduler not in model.schedulers:
        return describe("unknown_scheduler", detail=request.scheduler, known=", ".join(model.schedulers))
    if request.batch > limits.max_batch:
        return describe("invalid_field", detail=f"batch may be at most {limits.max_batch}; it was {request.batch}")
    return None


def _refuse_pixels(request: Request, limits: Limits) -> ErrorInfo | None:
    size = (request.width, request.height)
    if request.width * request.height * request.batch > limits.max_pixels:
        detail = f"{request.batch} × {size[0]} × {size[1]} px, and {limits.max_pixels} px are allowed"
        return describe("too_many_pixels", detail=detail)
    image, mask = request.image, request.mask
    if request.task == "inpaint" and (image is None or mask is None):
        return describe("invalid_field", detail="inpainting needs a picture and a selection mask")
    if mask is not None and (mask.channels != 1 or (mask.width, mask.height) != size):
        detail = f"{mask.width} × {mask.height} px with {mask.channels} channels, for {size[0]} × {size[1]} px"
        return describe("wrong_mask_size", detail=detail)
    if image is not None and (image.channels == 1 or (image.width, image.height) != size):
        detail = f"the picture must have colours and {size[0]} × {size[1]} px"
        return describe("invalid_field", detail=detail)
    return None
