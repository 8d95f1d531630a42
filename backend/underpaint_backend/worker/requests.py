"""The pixels that a request names, as arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import Image

from .failures import Refused


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
