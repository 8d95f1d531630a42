"""How fast and how small tiles are packed without loss: zlib, PNG and lossless WebP, on photographs and paintings.

The photographs are those of `bench/photographs`. The paintings, whose names begin with “drawn”, are drawn below: there
are none by artists that may be distributed here. Everything is cut into tiles of 256 px and packed tile by tile in
one thread; times are the thread's own, so that other busy programs disturb them little, and of each tile the median
of some runs. Every picture counts the same, however large.

The choice is zlib at level 1, whose size is the last line. It leaves 35 % at 104 MB/s in and 360 out; level 3 leaves
34 % at 72 MB/s and level 6 33 % at 38: less than a tenth smaller for up to three times the time. Planes win on soft
strokes (23 % for 45 %) and lose on flat areas, lines and grain: 34 % over all. PNG (28 % at 62 MB/s) and WebP (18 % at
65 MB/s) are smaller, but need an image library, which neither the daemon's server process nor the plugin has. At 16
bits it is 40 %, and 37 % in planes, which again are for soft strokes (43 % for 73 %); a photograph is small there, for
Krita makes its 16 bits by repeating its 8.

Two more were tried with what every Python has, an integer as long as the tile. “Minus the row above” is as small as
PNG, for a fifth of the speed in and three quarters of that out. “xor” sends what changed since the tile's last
version: after a stroke 6.8 KB for 75 KB, in half the time.

(This file is not called encodings, for Python does not start where one of that name comes before its own.)
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from report import Figure, show

SIDE = 256
CANVAS = 2048
CHOSEN = "zlib 1"
STROKE = 200
PHOTOGRAPHS = Path(__file__).parent / "photographs"
Colours = NDArray[np.float32]
"""Straight RGBA of 0 to 1, [H, W, 4]; while it is drawn, colours are multiplied with alpha."""


@dataclass(frozen=True)
class Tile:
    """Raw interleaved pixels, little-endian; `before` are those of the same place before a brush stroke."""

    width: int
    height: int
    pixels: bytes
    before: bytes = b""


@dataclass(frozen=True)
class Encoding:
    """A way to pack; `unpack` may look at the tile for its size and for what was there before, not at its pixels."""

    name: str
    pack: Callable[[Tile], bytes]
    unpack: Callable[[bytes, Tile], bytes]


@dataclass(frozen=True)
class Outcome:
    """What one encoding did with one tile: sizes in bytes, times in ms."""

    raw: int
    packed: int
    packing: float
    unpacking: float


def main() -> None:
    """Pack every picture with every encoding and print the size of the chosen one in percent of raw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of which the median is taken, for each tile")
    parser.add_argument(
        "--every", type=int, default=3, help="how many tiles of a painting go by for one that is packed"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    pictures = {**photographs(), **paintings()}
    groups = [
        ([*zlibs(1, 3, 6, channels=4), filtered(), *images()], tiles_of(pictures, np.uint8, arguments.every)),
        (zlibs(1, 3, 6, channels=8, suffix=", 16 bits"), tiles_of(pictures, np.uint16, arguments.every)),
        (after_a_stroke(), stroked(tiles_of(pictures, np.uint8, arguments.every))),
    ]
    rows = [row_of(encoding, tiles, arguments.runs) for encodings, tiles in groups for encoding in encodings]
    chosen = next(row["all, %"] for row in rows if row["encoding"] == CHOSEN)
    assert isinstance(chosen, float)
    show(Figure("packing", chosen, "%", "<= 50", rows), arguments.json)


def row_of(encoding: Encoding, pictures: Mapping[str, Sequence[Tile]], runs: int) -> Mapping[str, object]:
    """Speed and size of one encoding."""
    outcomes = {name: [outcome_of(encoding, tile, runs) for tile in tiles] for name, tiles in pictures.items()}
    sizes = {f"{name}, %": percent(of_one) for name, of_one in outcomes.items()}
    every = [outcome for of_one in outcomes.values() for outcome in of_one]
    whole = [outcome for outcome in every if outcome.raw == max(each.raw for each in every)]
    return {
        "encoding": encoding.name,
        "pack, MB/s": speed(outcomes.values(), lambda outcome: outcome.packing),
        "unpack, MB/s": speed(outcomes.values(), lambda outcome: outcome.unpacking),
        "pack, ms a tile": statistics.median(outcome.packing for outcome in whole),
        "unpack, ms a tile": statistics.median(outcome.unpacking for outcome in whole),
        "bytes a tile": int(statistics.median(outcome.packed for outcome in whole)),
        "all, %": statistics.mean(sizes.values()),
        **sizes,
    }


def speed(pictures: Iterable[Sequence[Outcome]], time_of: Callable[[Outcome], float]) -> float:
    """MB/s with the same amount of every picture."""
    per_byte = [sum(map(time_of, outcomes)) / sum(outcome.raw for outcome in outcomes) for outcomes in pictures]
    return 1e-3 / statistics.mean(per_byte)


def percent(outcomes: Sequence[Outcome]) -> float:
    """Packed size over raw size."""
    return 100 * sum(outcome.packed for outcome in outcomes) / sum(outcome.raw for outcome in outcomes)


def outcome_of(encoding: Encoding, tile: Tile, runs: int) -> Outcome:
    """Pack and unpack a tile some times. Raises `ValueError` if it is not the same afterwards."""
    packing, unpacking = [], []
    for _ in range(runs):
        began = time.thread_time()
        packed = encoding.pack(tile)
        between = time.thread_time()
        pixels = encoding.unpack(packed, tile)
        unpacking.append(1000 * (time.thread_time() - between))
        packing.append(1000 * (between - began))
        if pixels != tile.pixels:
            raise ValueError(f"{encoding.name} lost something")
    return Outcome(len(tile.pixels), len(packed), statistics.median(packing), statistics.median(unpacking))


def zlibs(*levels: int, channels: int, suffix: str = "") -> list[Encoding]:
    """zlib on pixels as they are, and on one plane after the other; a plane is one byte of each pixel."""

    def interleaved(level: int) -> Encoding:
        return Encoding(
            f"zlib {level}{suffix}",
            lambda tile: zlib.compress(tile.pixels, level),
            lambda packed, tile: zlib.decompress(packed),
        )

    planar = Encoding(
        f"zlib 1, planar{suffix}",
        lambda tile: zlib.compress(b"".join(tile.pixels[plane::channels] for plane in range(channels)), 1),
        lambda packed, tile: interleave(zlib.decompress(packed), channels),
    )
    return [*map(interleaved, levels), planar]


def interleave(planes: bytes, channels: int) -> bytes:
    """Put planes together again."""
    pixels = bytearray(len(planes))
    length = len(planes) // channels
    for plane in range(channels):
        pixels[plane::channels] = planes[plane * length : (plane + 1) * length]
    return bytes(pixels)


def filtered() -> Encoding:
    """zlib on each byte's difference to the one above, as PNG's “up”, in two integers as long as the tile.

    The topmost bit of each byte is kept out of the carries. Rows are summed up again in log2(rows) steps.
    """

    def masks(tile: Tile) -> tuple[int, int]:
        size = len(tile.pixels)
        return int.from_bytes(b"\x7f" * size, "little"), (1 << 8 * size) - 1

    def pack(tile: Tile) -> bytes:
        low, whole = masks(tile)
        pixels = int.from_bytes(tile.pixels, "little")
        above = (pixels << 32 * tile.width) & whole
        difference = ((pixels | (low ^ whole)) - (above & low)) ^ (~(pixels ^ above) & (low ^ whole))
        return zlib.compress(difference.to_bytes(len(tile.pixels), "little"), 1)

    def unpack(packed: bytes, tile: Tile) -> bytes:
        low, whole = masks(tile)
        pixels, bits = int.from_bytes(zlib.decompress(packed), "little"), 32 * tile.width
        while bits < 8 * len(tile.pixels):
            above = (pixels << bits) & whole
            pixels = ((pixels & low) + (above & low)) ^ ((pixels ^ above) & (low ^ whole))
            bits *= 2
        return pixels.to_bytes(len(tile.pixels), "little")

    return Encoding("zlib 1, minus the row above", pack, unpack)


def images() -> list[Encoding]:
    """Image formats by Pillow."""

    def image(name: str, **options: object) -> Encoding:
        def pack(tile: Tile) -> bytes:
            file = io.BytesIO()
            Image.frombytes("RGBA", (tile.width, tile.height), tile.pixels).save(file, name.split()[0], **options)
            return file.getvalue()

        return Encoding(name, pack, lambda packed, tile: Image.open(io.BytesIO(packed)).convert("RGBA").tobytes())

    return [
        *(image(f"PNG {level}", compress_level=level) for level in (1, 6)),
        # exact, because colours under transparency are part of a painting
        *(image(f"WebP lossless {method}", lossless=True, exact=True, method=method) for method in (0, 4)),
    ]


def after_a_stroke() -> list[Encoding]:
    """How a tile travels after one brush stroke: by itself, or as what has changed. The plugin has no numpy."""

    def xor(one: bytes, other: bytes) -> bytes:
        return (int.from_bytes(one, "little") ^ int.from_bytes(other, "little")).to_bytes(len(one), "little")

    def changes(level: int) -> Encoding:
        return Encoding(
            f"after a stroke of {STROKE} px: xor, zlib {level}",
            lambda tile: zlib.compress(xor(tile.before, tile.pixels), level),
            lambda packed, tile: xor(tile.before, zlib.decompress(packed)),
        )

    alone = zlibs(1, channels=4)[0]
    return [replace(alone, name=f"after a stroke of {STROKE} px: {alone.name}"), changes(1), changes(6)]


def stroked(pictures: Mapping[str, Sequence[Tile]]) -> Mapping[str, Sequence[Tile]]:
    """Whole tiles with a soft stroke across their middle."""

    def painted(tile: Tile) -> Tile:
        canvas: Colours = np.frombuffer(tile.pixels, np.uint8).reshape(SIDE, SIDE, 4).astype(np.float32)
        canvas /= 255
        canvas[..., :3] *= canvas[..., 3:]
        reach = STROKE / 8**0.5
        stroke(canvas, (128 - reach, 128 - reach), (128 + reach, 128 + reach), 12, 12, (0.2, 0.4, 0.7), 0.9)
        return Tile(SIDE, SIDE, as_integers(canvas, np.uint8).tobytes(), before=tile.pixels)

    whole = SIDE * SIDE * 4
    return {name: [painted(tile) for tile in tiles if len(tile.pixels) == whole] for name, tiles in pictures.items()}


def tiles_of(
    pictures: Mapping[str, Colours], depth: type[np.uint8 | np.uint16], every: int
) -> Mapping[str, Sequence[Tile]]:
    """Cut pictures up; of the paintings, only some of the tiles."""
    return {
        name: cut(as_integers(p, depth))[:: every if name.startswith("drawn") else 1] for name, p in pictures.items()
    }


def cut(pixels: NDArray[np.uint8 | np.uint16]) -> list[Tile]:
    """Tiles from left to right and from the top down; those at the edges are smaller."""
    corners = ((y, x) for y in range(0, len(pixels), SIDE) for x in range(0, pixels.shape[1], SIDE))
    pieces = (pixels[y : y + SIDE, x : x + SIDE] for y, x in corners)
    return [Tile(piece.shape[1], piece.shape[0], piece.tobytes()) for piece in pieces]


def as_integers(picture: Colours, depth: type[np.uint8 | np.uint16]) -> NDArray[np.uint8 | np.uint16]:
    """Channels of 8 or 16 bits. A photograph's 8 bits become 16 as Krita makes them, 257 for 1."""
    straight = picture.copy()
    np.divide(picture[..., :3], picture[..., 3:], out=straight[..., :3], where=picture[..., 3:] > 0)
    return np.round(straight.clip(0, 1).astype(np.float64) * np.iinfo(depth).max).astype(depth)


def photographs() -> dict[str, Colours]:
    """The photographs, opaque."""
    opened = {path.stem: Image.open(path).convert("RGBA") for path in sorted(PHOTOGRAPHS.glob("*.jpg"))}
    return {name: np.asarray(image, np.float32) / np.float32(255) for name, image in opened.items()}


def paintings() -> dict[str, Colours]:
    """What artists do, roughly: soft strokes on a ground, flat areas, lines on nothing, a rough texture."""
    random = np.random.default_rng(1)
    soft, cel, lines = blank((0.9, 0.85, 0.8), 1), blank((0.5, 0.7, 0.9), 1), blank((0, 0, 0), 0)
    for _ in range(250):
        any_stroke(soft, random, radii=(8, 90), softness=1, opacity=0.7)
    for _ in range(60):
        any_stroke(cel, random, radii=(40, 250), softness=0, opacity=1)
    for _ in range(150):
        any_stroke(lines, random, radii=(1, 5), softness=0, opacity=1, colour=(0.1, 0.08, 0.12))
    return {"drawn soft strokes": soft, "drawn flat areas": cel, "drawn lines": lines, "drawn texture": texture(random)}


def blank(colour: tuple[float, float, float], alpha: float) -> Colours:
    """An empty canvas."""
    return np.tile(np.array((*colour, alpha), np.float32), (CANVAS, CANVAS, 1))


def texture(random: np.random.Generator) -> Colours:
    """Clouds of four sizes and a fine grain, as of a dry brush on paper."""
    canvas = blank((0.5, 0.4, 0.3), 1)
    for octave in range(4):
        small = random.normal(0, 0.15 / (octave + 1), (CANVAS >> (8 - 2 * octave),) * 2).astype(np.float32)
        canvas[..., :3] += np.asarray(Image.fromarray(small).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC))[
            ..., None
        ]
    canvas[..., :3] += random.normal(0, 4 / 255, (CANVAS, CANVAS, 1))
    return canvas.clip(0, 1)


def any_stroke(
    canvas: Colours,
    random: np.random.Generator,
    radii: tuple[int, int],
    softness: float,
    opacity: float,
    colour: tuple[float, float, float] | None = None,
) -> None:
    """Draw a stroke somewhere; `softness` is the share of the radius over which it fades."""
    start, radius = random.uniform(0, CANVAS, 2), random.uniform(*radii)
    end = start + random.normal(0, 250, 2)
    red, green, blue = random.uniform(0, 1, 3) if colour is None else colour
    stroke(canvas, tuple(start), tuple(end), radius, max(1, softness * radius), (red, green, blue), opacity)


def stroke(
    canvas: Colours,
    start: tuple[float, ...],
    end: tuple[float, ...],
    radius: float,
    fade: float,
    colour: tuple[float, float, float],
    opacity: float,
) -> None:
    """Draw a straight stroke with round ends from (y, x) to (y, x); it fades over the outermost `fade` px."""
    (top, left), (bottom, right) = np.minimum(start, end) - radius, np.maximum(start, end) + radius + 1
    rows = slice(max(0, int(top)), max(0, int(bottom)))
    columns = slice(max(0, int(left)), max(0, int(right)))
    part = canvas[rows, columns]
    ys, xs = (np.arange(span.start, span.start + side) for span, side in zip((rows, columns), part.shape, strict=False))
    y, x = (ys - start[0])[:, None].astype(np.float32), (xs - start[1])[None].astype(np.float32)
    dy, dx = end[0] - start[0], end[1] - start[1]
    along = ((y * dy + x * dx) / max(dy * dy + dx * dx, 1e-6)).clip(0, 1)
    cover = opacity * ((radius - np.hypot(y - along * dy, x - along * dx)) / fade).clip(0, 1)[..., None]
    part *= 1 - cover
    part += cover * np.array((*colour, 1), np.float32)


if __name__ == "__main__":
    main()
