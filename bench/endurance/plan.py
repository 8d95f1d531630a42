"""What a client is going to ask for, made from a seed: the same in each of its lives, and in an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, islice
from random import Random
from typing import Literal

from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Image, Request

from .models import INPAINTER, PAINTER

Conduct = Literal["plain", "cancelled", "superseding", "twice"]

SIDE = 700
"""Pixels along each side of a client's canvas: nine cells of the grid, four of them cut off."""
SIZES = ((64, 64), (64, 64), (96, 64), (300, 200), (512, 384))
"""Width and height of pictures from text. All are painted at about 32 × 32 px; large ones are long on their way."""


@dataclass(frozen=True)
class Planned:
    """One job. `delay` is how many seconds after it is submitted it is cancelled, if it is."""

    id: str
    request: Request
    tiles: Mapping[bytes, bytes] = field(repr=False)
    conduct: Conduct = "plain"
    delay: float = 0.0
    previews: bool = True
    supersedes: str | None = None


def plan(seed: int, client: int, jobs: int) -> list[Planned]:
    """The jobs of one client, in order. Other clients have jobs of the same names, but not the same ones."""
    return list(islice(endless_plan(seed, client), jobs))


def endless_plan(seed: int, client: int) -> Iterator[Planned]:
    """The jobs of a client that never stops, in order."""
    rng = Random(f"{seed} {client}")
    canvas = _Canvas(rng)
    previous: str | None = None
    for number in count():
        request, tiles = canvas.inpaint() if rng.random() < 0.45 else (_from_text(rng), {})
        conduct: Conduct = rng.choices(("plain", "cancelled", "superseding", "twice"), (60, 12, 13, 15))[0]
        superseded = previous if conduct == "superseding" else None
        delay, previews = rng.choice((0.0, 0.05, 0.3, 1.0)), rng.random() < 0.5
        previous = f"job-{number}"
        yield Planned(previous, request, tiles, conduct, delay, previews, superseded)


def may_be_cancelled(jobs: list[Planned]) -> set[str]:
    """Those that are cancelled or superseded by another one; they may end either way."""
    asked = {job.id for job in jobs if job.conduct == "cancelled"}
    return asked | {job.supersedes for job in jobs if job.supersedes is not None}


def _from_text(rng: Random) -> Request:
    width, height = rng.choice(SIZES)
    return _numbered(rng, Request(PAINTER, "text_to_image", width, height, prompt=_prompt(rng)))


def _prompt(rng: Random) -> str:
    return " ".join(rng.choices(("a", "red", "fox", "under", "an", "old", "oak"), k=rng.randint(1, 6)))


def _numbered(rng: Random, request: Request) -> Request:
    batch = 2 if rng.random() < 0.15 else 1
    return replace(request, steps=rng.randint(1, 2), seed=rng.getrandbits(62), batch=batch)


class _Canvas:
    """A painting of four channels that is worked on between the jobs."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._pixels = bytearray(rng.randbytes(SIDE * 4) * SIDE)

    def inpaint(self) -> tuple[Request, dict[bytes, bytes]]:
        """A request for a part of the canvas, perhaps after another stroke, and its tiles."""
        rng = self._rng
        if rng.random() < 0.5:
            self._stroke()
        width, height = rng.randint(48, 320), rng.randint(48, 320)
        x, y = rng.randint(0, SIDE - width), rng.randint(0, SIDE - height)
        image, tiles = self._part(x, y, width, height, depth=16 if rng.random() < 0.1 else 8)
        mask, more = image_of(width, height, 1, _selection(rng, width * height), x=x, y=y)
        request = Request(
            INPAINTER if rng.random() < 0.3 else PAINTER,
            "inpaint",
            width,
            height,
            prompt=_prompt(rng),
            strength=rng.choice((0.5, 1.0)),
            image=image,
            mask=mask,
        )
        return _numbered(rng, request), {**tiles, **more}

    def _part(self, x: int, y: int, width: int, height: int, depth: int) -> tuple[Image, dict[bytes, bytes]]:
        starts = range((y * SIDE + x) * 4, ((y + height) * SIDE + x) * 4, SIDE * 4)
        pixels = b"".join(self._pixels[start : start + width * 4] for start in starts)
        if depth == 16:  # each value twice, which is the same value in 16 bits
            wide = bytearray(2 * len(pixels))
            wide[::2] = wide[1::2] = pixels
            pixels = bytes(wide)
        return image_of(width, height, 4, pixels, x=x, y=y, depth=depth)

    def _stroke(self) -> None:
        length = self._rng.randint(20, 120)
        x, y = self._rng.randint(0, SIDE - length), self._rng.randint(0, SIDE - 10)
        for row in range(y, y + 10):
            start = (row * SIDE + x) * 4
            self._pixels[start : start + length * 4] = self._rng.randbytes(4) * length


def _selection(rng: Random, area: int) -> bytes:
    """A mask that selects all from some pixel on."""
    first = rng.randint(0, area // 2)
    return bytes(first) + b"\xff" * (area - first)
