"""Whether a model can do what a request asks: one rule for the server, which asks first, and for the worker."""

from __future__ import annotations

from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.messages import Model, Request


def reason_to_refuse(request: Request, model: Model) -> ErrorInfo | None:
    """The first reason why `model` cannot do `request`; None if it can."""
    if request.task not in model.tasks:
        task = request.task.replace("_", " ")
        return describe("unsupported_task", model=model.name, detail=f"its tasks do not include “{task}”")
    scheduler = request.scheduler or model.default_scheduler
    if scheduler not in model.schedulers:
        return describe("unknown_scheduler", detail=scheduler, known=", ".join(model.schedulers))
    return _reason_in_pictures(request)


def _reason_in_pictures(request: Request) -> ErrorInfo | None:
    image, mask = request.image, request.mask
    width, height = request.width, request.height
    if request.task == "inpaint" and (image is None or mask is None):
        return describe("invalid_field", detail="inpainting needs a picture and a selection mask")
    if image is not None and (image.channels == 1 or (image.width, image.height) != (width, height)):
        return describe("invalid_field", detail=f"the picture must have colours and {width} × {height} px")
    if mask is not None and (mask.channels != 1 or (mask.width, mask.height) != (width, height)):
        detail = f"{mask.width} × {mask.height} px with {mask.channels} channels, for {width} × {height} px"
        return describe("wrong_mask_size", detail=detail)
    return None
