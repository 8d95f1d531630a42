"""Pictures in files, as the command line and the demonstration use them: from a photograph and a mask to a request,
and from a finished picture back into the photograph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError
from underpaint_protocol.client import Picture
from underpaint_protocol.exceptions import EmptySelection
from underpaint_protocol.geometry import Box, context_box
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Request

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 1 << 27


class BadPicture(Exception):
    """A picture that cannot be used; the text says why."""


@dataclass(frozen=True)
class Order:
    """A request with the tiles that it names, and where its result belongs."""

    request: Request
    box: Box
    tiles: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)


def open_picture(path: Path, mode: str) -> Image.Image:
    """The picture in `path`, upright and converted to Pillow's `mode` ("RGBA" or "L").

    Raises `BadPicture` if there is none, or it is not a PNG, JPEG or WebP.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BadPicture(f"{path} has {picture.width} × {picture.height} px, which is too large")
            return ImageOps.exif_transpose(picture).convert(mode)
    except FileNotFoundError:
        raise BadPicture(f"there is no file {path}") from None
    except UnidentifiedImageError:
        raise BadPicture(f"{path} is not a PNG, JPEG or WebP picture") from None
    except (OSError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadPicture(f"{path} cannot be read: {error}") from None


def inpainting(settings: Request, canvas: Image.Image, mask: Image.Image) -> Order:
    """Ask to paint into the selection `mask` (mode "L", 255 is selected) of `canvas` (mode "RGBA").

    `settings` holds all but the pixels. Raises `BadPicture` if the mask is empty or of another size.
    """
    if mask.size != canvas.size:
        sizes = [f"{width} × {height} px" for width, height in (mask.size, canvas.size)]
        raise BadPicture(f"the mask has {sizes[0]}, the picture {sizes[1]}")
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    try:
        box = context_box(Box(left, top, right - left, bottom - top), Box(0, 0, *canvas.size))
    except EmptySelection:
        raise BadPicture("the mask selects nothing") from None
    area = (box.x, box.y, box.right, box.bottom)
    image, pixels = image_of(box.width, box.height, 4, canvas.crop(area).tobytes(), x=box.x, y=box.y)
    selection, more = image_of(box.width, box.height, 1, mask.crop(area).tobytes(), x=box.x, y=box.y)
    request = replace(settings, task="inpaint", width=box.width, height=box.height, image=image, mask=selection)
    return Order(request, box, {**pixels, **more})


def changing(settings: Request, canvas: Image.Image) -> Order:
    """Ask to paint the whole of `canvas` (mode "RGBA") anew, or to edit it; `settings.task` says which."""
    width, height = canvas.size
    image, pixels = image_of(width, height, 4, canvas.tobytes())
    request = replace(settings, width=width, height=height, image=image)
    return Order(request, Box(0, 0, width, height), pixels)


def referring(order: Order, references: Iterable[Image.Image]) -> Order:
    """The order with pictures (mode "RGBA") to refer to."""
    images, tiles = list(order.request.references), dict(order.tiles)
    for reference in references:
        image, pixels = image_of(*reference.size, 4, reference.tobytes())
        images.append(image)
        tiles.update(pixels)
    return replace(order, request=replace(order.request, references=tuple(images)), tiles=tiles)


def lay_over(canvas: Image.Image, picture: Picture, box: Box) -> Image.Image:
    """A copy of `canvas` (mode "RGBA") with a finished picture laid over it at `box`."""
    layer = Image.new("RGBA", canvas.size)
    layer.paste(Image.frombytes("RGBA", (picture.width, picture.height), bytes(picture.pixels)), (box.x, box.y))
    return Image.alpha_composite(canvas, layer)
