"""What came with a request, as arrays, and what goes back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import Request

from ..engine.painting import Source
from ..imaging.composite import cut_out, opaque
from ..imaging.depth import Pixels, like, to_8_bits
from ..imaging.prepare import flatten, prepare
from ..imaging.resize import resize_picture
from .failures import Refused
from .requests import pixels_of


class Pictures:
    """The canvas [H, W, C] and the mask [H, W] of a request, where it has them, and its references."""

    def __init__(self, request: Request, arrived: Mapping[bytes, bytes]) -> None:
        """`arrived` are the tiles that came, by name. Raises `Refused`."""
        self.size = (request.width, request.height)
        self.canvas: Pixels | None = None
        self.mask: Pixels | None = None
        if request.image is not None and request.task != "text_to_image":
            self.canvas = pixels_of(request.image, arrived)
            if request.mask is not None:
                self.mask = pixels_of(request.mask, arrived)
                if not self.mask.any():
                    raise Refused(describe("empty_selection"))
        self._named = [flatten(to_8_bits(pixels_of(image, arrived))) for image in request.references]
        self._task = request.task

    def source(self, size: tuple[int, int], *, forget: bool) -> Source | None:
        """The canvas at working size, for the engine; None where the picture begins with nothing but noise."""
        if self.canvas is None:
            return None
        canvas = to_8_bits(self.canvas)
        if self.mask is not None:
            return Source(*prepare(canvas, to_8_bits(self.mask), size, forget=forget))
        if self._task == "edit":
            return None
        width, height = size
        return Source(resize_picture(flatten(canvas), size), np.ones((height, width), np.float32))

    def references(self, canvas_at: tuple[int, int] | None) -> list[NDArray[np.uint8]]:
        """The pictures [H, W, 3] to refer to. The canvas comes first where it is to be seen, at the size given."""
        if self.canvas is None or canvas_at is None:
            return self._named
        return [resize_picture(flatten(to_8_bits(self.canvas)), canvas_at), *self._named]

    def finished(self, painted: NDArray[np.uint8]) -> Pixels:
        """A painted picture [h, w, 3] as the client wants it, [H, W, 4], in the canvas' depth."""
        if self.canvas is None:
            return opaque(painted, self.size)
        if self.mask is None:
            return like(opaque(painted, self.size), self.canvas)
        return cut_out(painted, self.canvas, self.mask)
