"""Requests as they must be before anything is loaded for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import Image, Model, Request

from .failures import Refused


def check_request(request: Request, model: Model) -> None:
    """Raise `Refused` if the model cannot do what is asked, or if the pictures do not fit the request."""
    scheduler = request.scheduler or model.default_scheduler
    if request.task not in model.tasks:
        raise Refused(describe("unsupported_task", model=model.name, detail=request.task.replace("_", " ")))
    if scheduler not in model.schedulers:
        raise Refused(describe("unknown_scheduler", detail=scheduler, known=", ".join(model.schedulers)))
    if request.task == "inpaint":
        _check_pictures(request)


def _check_pictures(request: Request) -> None:
    image, mask = request.image, request.mask
    if image is None or mask is None:
        raise Refused(describe("invalid_field", detail="to inpaint takes a picture and a mask"))
    if image.channels == 1 or mask.channels != 1:
        raise Refused(describe("invalid_field", detail="the picture must have colours, and the mask one channel"))
    if (image.width, image.height) != (request.width, request.height):
        raise Refused(describe("invalid_field", detail="the picture must be as large as the request says"))
    if (mask.width, mask.height) != (image.width, image.height):
        sizes = f"it has {mask.width} × {mask.height} pixels, the picture {image.width} × {image.height}"
        raise Refused(describe("wrong_mask_size", detail=sizes))


def pixels_of(image: Image, blobs: dict[str, bytes]) -> NDArray[np.uint8]:
    """The pixels of `image`: [H, W, C], or [H, W] for a mask.

    Raises `Refused` if they never came or are not as many as they should be.
    """
    data = blobs.get(image.blob)
    if data is None:
        raise Refused(describe("missing_pixels", detail=f"{image.width} × {image.height} pixels"))
    if len(data) != image.size:
        raise Refused(describe("missing_pixels", detail=f"{len(data)} of {image.size} bytes"))
    shape = (image.height, image.width, image.channels)
    return np.frombuffer(data, np.uint8).reshape(shape if image.channels > 1 else shape[:2])
