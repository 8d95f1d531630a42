"""From what Krita has to what travels: pixels in another order, cut into tiles that are named by their content."""

from __future__ import annotations

import dataclasses
from typing import Dict, Tuple

from ._vendor.underpaint_protocol.images import image_of
from ._vendor.underpaint_protocol.messages import Request
from .events import Job
from .pixels import with_red_and_blue_swapped


def on_the_wire(job: Job) -> Tuple[Request, Dict[bytes, bytes]]:
    """The request with its pictures, and their tiles by name.

    The tiles lie on the grid of the canvas, so that what did not change since the last job has the same names.
    Raises `TileError` if pixels or mask are not as large as the request.
    """
    if job.pixels is None or job.mask is None:
        return job.request, {}
    width, height, place = job.request.width, job.request.height, job.place
    image, tiles = image_of(width, height, 4, with_red_and_blue_swapped(job.pixels), x=place.x, y=place.y)
    mask, more = image_of(width, height, 1, job.mask, x=place.x, y=place.y)
    return dataclasses.replace(job.request, image=image, mask=mask), {**tiles, **more}
