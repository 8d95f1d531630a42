"""The pixels that a request names, as arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from underpaint_protocol import images
from underpaint_protocol.errors import describe
from underpaint_protocol.exceptions import TileError
from underpaint_protocol.messages import Image

from ..imaging.depth import Pixels
from .failures import Refused


def pixels_of(image: Image, tiles: Mapping[bytes, bytes]) -> Pixels:
    """The pixels of `image`, [H, W, C], or [H, W] for a mask, in uint8 or uint16.

    Raises `Refused` if a tile never came or is not as large as it should be.
    """
    try:
        data = images.pixels_of(image, tiles)
    except TileError:
        raise Refused(describe("missing_pixels", detail=f"{image.width} × {image.height} pixels")) from None
    samples: Pixels = np.frombuffer(data, np.uint8)
    if image.depth == 16:
        samples = samples.view("<u2").astype(np.uint16)
    shape = (image.height, image.width, image.channels)
    return samples.reshape(shape if image.channels > 1 else shape[:2])
