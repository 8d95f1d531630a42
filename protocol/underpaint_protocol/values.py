"""What messages carry: pictures, requests, models, limits.

Sizes are in pixels, fractions from 0 to 1, times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterator, Optional, Tuple

from .exceptions import InvalidField
from .fields import (
    DIGEST_SIZE,
    MODEL_ID,
    Record,
    choice,
    digests,
    flag,
    integer,
    optional,
    real,
    sequence,
    text,
)
from .tiles import cell_count, cells

MAX_SIDE = 16384
MAX_TILES = 4096
MAX_NAMES = 2 * MAX_TILES
"""Tiles that all pictures of one request may have together; cutting more names apart holds up whoever does it."""
MAX_JOBS = 4096

TASKS = ("inpaint", "text_to_image", "image_to_image", "edit")
MODEL_STATES = ("ready", "absent", "unfit")
WORKER_STATES = ("starting", "ready", "restarting", "failed")


@dataclass(frozen=True)
class Image(Record):
    """Pixels in tiles: `tiles` are the names of the cells of the canvas grid under the picture, row by row.

    The picture's corner lies at (`x`, `y`) of the canvas. 1 channel: a mask, all bits set is fully selected. 3: red,
    green, blue. 4: with straight alpha. Colours are sRGB. `depth` is 8 or 16 bits a channel, 16 in little-endian.
    """

    width: int = integer(1, MAX_SIDE)
    height: int = integer(1, MAX_SIDE)
    channels: int = choice((1, 3, 4))
    tiles: Tuple[bytes, ...] = digests(MAX_TILES)
    x: int = integer(0, 1 << 30, default=0)
    y: int = integer(0, 1 << 30, default=0)
    depth: int = choice((8, 16), default=8)

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = cell_count(self.x, self.y, self.width, self.height)
        if len(self.tiles) != expected:
            raise InvalidField("tiles", f"must name {expected} tiles; they are {len(self.tiles)}")

    @property
    def pixel_size(self) -> int:
        """Bytes of one pixel."""
        return self.channels * self.depth // 8

    @property
    def size(self) -> int:
        """Bytes of all pixels."""
        return self.width * self.height * self.pixel_size

    @property
    def tile_sizes(self) -> Iterator[Tuple[bytes, int]]:
        """Each tile's name and how many bytes it must have."""
        widths = [cell.area for cell in cells(self.x, 0, self.width, 1)]
        rows = [cell.area * self.pixel_size for cell in cells(0, self.y, 1, self.height)]
        return zip(self.tiles, [row * width for row in rows for width in widths])


@dataclass(frozen=True)
class Adapter(Record):
    """A LoRA that changes the model for one job, as far as `weight` says; 0 is not at all."""

    name: str = text(200)
    weight: float = real(-4.0, 4.0, default=1.0)


@dataclass(frozen=True)
class Request(Record):
    """All that determines a picture. Two equal requests give equal pictures on one machine.

    `image` is the part of the canvas around the selection and `mask`, of the same size, the selection. Without an
    image, `width` and `height` are the size of the new picture. `None` for scheduler, guidance or steps takes the
    model's own default. A large area is painted at the model's own size and scaled up, or with `full_size` at up to 4
    megapixels, in windows where the model was trained for less. `references` are pictures of any size to take something
    from; `loras` change the model.
    """

    model: str = text(100, pattern=MODEL_ID)
    task: str = choice(TASKS)
    width: int = integer(1, MAX_SIDE)
    height: int = integer(1, MAX_SIDE)
    prompt: str = text(100_000, default="")
    negative_prompt: str = text(100_000, default="")
    strength: float = real(0.01, 1.0, default=1.0)
    steps: Optional[int] = optional(integer(1, 1000))
    guidance: Optional[float] = optional(real(0.0, 100.0))
    scheduler: Optional[str] = optional(text(64))
    seed: int = integer(0, 2**63 - 1, default=0)
    batch: int = integer(1, 16, default=1)
    image: Optional[Image] = optional(Image)
    mask: Optional[Image] = optional(Image)
    full_size: bool = flag(default=False)
    references: Tuple[Image, ...] = sequence(Image, 16, default=())
    loras: Tuple[Adapter, ...] = sequence(Adapter, 16, default=())

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_names(sum(len(image.tiles) for image in self.images))

    @classmethod
    def from_wire(cls, wire: Dict[str, Any]) -> Request:
        """As any record, but too many names of tiles are refused before they are cut apart."""
        _check_names(_names_in(wire))
        return super().from_wire(wire)

    @property
    def images(self) -> Tuple[Image, ...]:
        """The pictures that travel with the request."""
        return tuple(image for image in (self.image, self.mask, *self.references) if image is not None)


def _check_names(count: int) -> None:
    if count > MAX_NAMES:
        raise InvalidField(
            "references", f"and the other pictures may have at most {MAX_NAMES} tiles; they have {count}"
        )


def _names_in(wire: Dict[str, Any]) -> int:
    """How many tiles a request names that nobody has checked yet; what is no picture counts as none."""
    references = wire.get("references")
    images = [wire.get("image"), wire.get("mask"), *(references if isinstance(references, list) else ())]
    names = [image.get("tiles") for image in images if isinstance(image, dict)]
    return sum(len(joined) for joined in names if isinstance(joined, bytes)) // DIGEST_SIZE


@dataclass(frozen=True)
class Model(Record):
    """A model that the daemon can run, or could, with the values that suit it.

    The model paints best at about `native_area` square pixels, with sides that are multiples of `size_multiple`. It
    takes up to `max_references` reference pictures, beside the canvas that it paints into. Only what is "ready" can be
    used at once; what is "absent" has to be fetched first, which are `download` bytes, and what is "unfit" cannot run
    here, of which `detail` says why. `gated` models want their licence accepted by whoever fetches them, and `detail`
    says where. `memory` is about how many bytes it takes.
    """

    id: str = text(100, pattern=MODEL_ID)
    name: str = text(200)
    family: str = text(64, pattern=r"[a-z0-9_]+")
    tasks: Tuple[str, ...] = sequence(choice(TASKS), 16)
    schedulers: Tuple[str, ...] = sequence(text(64), 64)
    native_area: int = integer(1, 1 << 28)
    size_multiple: int = integer(1, 1024)
    default_steps: int = integer(1, 1000)
    default_guidance: float = real(0.0, 100.0)
    default_scheduler: str = text(64)
    licence: str = text(200, default="")
    max_references: int = integer(0, 16, default=0)
    state: str = choice(MODEL_STATES, default="ready")
    download: int = integer(0, 1 << 50, default=0)
    gated: bool = flag(default=False)
    memory: int = integer(0, 1 << 50, default=0)
    detail: str = text(500, default="")


@dataclass(frozen=True)
class Limits(Record):
    """What the holder of one token may ask for.

    `max_pixels` is the area of a request times its batch; `max_jobs` may wait and run at once, with `max_tile_bytes`
    of pixels. Results are kept for `keep_seconds`. A client that does not read for `stall_seconds` is closed.
    `work_per_day` is in megapixel steps: area times pictures times steps, in millions; None is without bound.
    """

    max_pixels: int = integer(1, 1 << 30)
    max_jobs: int = integer(1, MAX_JOBS)
    max_batch: int = integer(1, 16)
    max_tile_bytes: int = integer(1, 1 << 40)
    keep_seconds: int = integer(0, 1 << 32)
    stall_seconds: int = integer(1, 3600)
    work_per_day: Optional[int] = optional(integer(0, 1 << 50))


@dataclass(frozen=True)
class Worker(Record):
    """How the process that owns the device is. `device` is what it runs on, such as "cpu" or "cuda:0 NVIDIA L4"."""

    state: str = choice(WORKER_STATES)
    device: str = text(200, default="")
    detail: str = text(500, default="")
