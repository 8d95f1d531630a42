"""`underpaint generate`: pictures from the command line, through the daemon like everyone's."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image
from underpaint_protocol.client import Event, Picture
from underpaint_protocol.exceptions import InvalidField
from underpaint_protocol.fields import MODEL_ID
from underpaint_protocol.geometry import Box
from underpaint_protocol.messages import MAX_SIDE, Adapter, Done, Progress, Request

from ..client import Refused, connect
from ..models.schedulers import is_hybrid
from ..models.suitability import SMALLEST_SIDE
from ..pictures import BadPicture, Order, changing, inpainting, lay_over, open_picture, referring
from . import CommandError, Interrupted, numbers, reach

MOST = 1000
"""Pictures that one command makes."""
SEEDS = 1 << 63
"""After the last one comes 0."""

SIZE = "512x512"
"""Of a picture from words alone, where nobody says another."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `generate`."""
    parser.add_argument("prompt", help="what should be there")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the PNG to write")
    parser.add_argument(
        "--count",
        type=numbers.whole,
        default=1,
        metavar="N",
        help="how many pictures, each with a seed of its own, as FILE-1.png and so on; what is there stays",
    )
    parser.add_argument("--image", type=Path, metavar="FILE", help="the picture to paint into")
    parser.add_argument(
        "--mask", type=Path, metavar="FILE", help="the selection: white is painted, black stays (default: all of it)"
    )
    parser.add_argument("--edit", action="store_true", help="the prompt is an instruction what to change in --image")
    parser.add_argument(
        "--reference",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a picture to refer to; may be repeated",
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="NAME[:WEIGHT]",
        help="changes the model; may be repeated",
    )
    parser.add_argument(
        "--full-size", action="store_true", help="paint a large picture instead of scaling up a small one"
    )
    parser.add_argument("--size", metavar="WxH", help=f"of a picture without --image (default: {SIZE})")
    parser.add_argument("--model", default="primer-inpaint")
    parser.add_argument("--negative-prompt", default="", metavar="TEXT")
    parser.add_argument("--strength", type=numbers.number, help="0.01 to 1 (default); less keeps more of --image")
    parser.add_argument("--steps", type=numbers.whole)
    parser.add_argument("--guidance", type=numbers.number)
    parser.add_argument("--scheduler", help="such as ddim, or ddim:30+ddpm:20, which changes over")
    parser.add_argument(
        "--seed", type=numbers.whole, help="the same seed gives the same picture (default: a random one)"
    )
    reach.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Paint what was asked for; the exit code is 1 if the daemon could not."""
    logging.getLogger("underpaint").setLevel(logging.ERROR)  # what went wrong is said once, at the end
    output: Path = arguments.output
    if output.suffix.lower() != ".png" or output.is_dir() or not output.absolute().parent.is_dir():
        raise CommandError(f"--output must be a PNG in a folder that exists; it was {output}")
    try:
        canvas, order = _order(arguments)
    except (BadPicture, InvalidField) as error:
        raise CommandError(str(error)) from None
    if not 1 <= arguments.count <= MOST:
        raise CommandError(f"--count must be from 1 to {MOST}; it was {arguments.count}")
    written = 0

    def keep(picture: Picture) -> None:
        nonlocal written
        try:
            path = _write(lay_over(canvas, picture, order.box), output, numbered=arguments.count > 1)
        except (OSError, ValueError) as error:
            raise CommandError(f"cannot write {output}: {error}") from None
        written += 1
        print(f"{path} (seed {picture.seed})", flush=True)

    try:
        asyncio.run(_paint(reach.reach(arguments), order, arguments.count, keep))
    except Refused as refused:
        print(f"underpaint: {reach.in_words(refused)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # `generate` of the client has told the daemon, on its way out
        kept = f"; {written} of {arguments.count} are written" if written else ", and nothing was written"
        raise Interrupted(f"the picture was cancelled{kept}") from None
    return 0


def _write(picture: Image.Image, output: Path, *, numbered: bool) -> Path:
    """Write to `output`, or beside it under the first number that is free. Raises `OSError` and `ValueError`."""
    if not numbered:
        picture.save(output)
        return output
    for number in itertools.count(1):
        path = output.with_stem(f"{output.stem}-{number}")
        with contextlib.suppress(FileExistsError), path.open("xb") as file:
            try:
                picture.save(file, "PNG")
            except OSError:
                path.unlink()
                raise
            break
    return path


def _order(arguments: argparse.Namespace) -> tuple[Image.Image, Order]:
    if arguments.image is None:
        for option, given in (
            ("--mask", arguments.mask is not None),
            ("--edit", arguments.edit),
            ("--strength", arguments.strength is not None),
        ):
            if given:
                raise CommandError(f"{option} needs the picture that it is for: give the --image")
    elif arguments.size is not None:
        raise CommandError("--size is for a picture without --image: this one stays as large as it is. Leave it away")
    canvas, order = _canvas_and_order(arguments)
    return canvas, referring(order, (open_picture(path, "RGBA") for path in arguments.reference))


def _canvas_and_order(arguments: argparse.Namespace) -> tuple[Image.Image, Order]:
    if not re.fullmatch(MODEL_ID, arguments.model):
        raise CommandError(f"there is no model called {arguments.model}; “underpaint models” lists them")
    if arguments.steps is not None and arguments.scheduler is not None and is_hybrid(arguments.scheduler):
        raise CommandError(f"{arguments.scheduler} says how many steps it makes, so leave --steps away")
    width, height = _size(SIZE if arguments.size is None else arguments.size)
    settings = Request(
        model=arguments.model,
        task="text_to_image" if arguments.image is None else "edit" if arguments.edit else "image_to_image",
        width=width,
        height=height,
        prompt=arguments.prompt,
        negative_prompt=arguments.negative_prompt,
        strength=1.0 if arguments.strength is None else arguments.strength,
        steps=arguments.steps,
        guidance=arguments.guidance,
        scheduler=arguments.scheduler,
        seed=secrets.randbits(32) if arguments.seed is None else arguments.seed,
        full_size=arguments.full_size,
        loras=tuple(map(_lora, arguments.lora)),
    )
    if arguments.image is None:
        return Image.new("RGBA", (width, height)), Order(settings, Box(0, 0, width, height))
    canvas = open_picture(arguments.image, "RGBA")
    if arguments.mask is None:
        return canvas, changing(settings, canvas)
    order = inpainting(settings, canvas, open_picture(arguments.mask, "L"))
    return canvas, replace(order, request=replace(order.request, task="edit")) if arguments.edit else order


def _lora(words: str) -> Adapter:
    """ "ink:0.8" is the LoRA “ink” at 0.8; without a weight it is 1."""
    name, _, weight = words.rpartition(":")
    try:
        return Adapter(name, float(weight)) if name else Adapter(words)
    except (ValueError, InvalidField):
        raise CommandError(f"--lora must be like ink or ink:0.8, with a weight from -4 to 4; it was {words}") from None


def _size(words: str) -> tuple[int, int]:
    sides = re.fullmatch(r"([0-9]{1,5})[xX×]([0-9]{1,5})", words)
    if sides is None:
        raise CommandError(f"--size must be like 512x512; it was {words}")
    width, height = int(sides[1]), int(sides[2])
    if not all(SMALLEST_SIDE <= side <= MAX_SIDE for side in (width, height)):
        bounds = f"{SMALLEST_SIDE}x{SMALLEST_SIDE} to {MAX_SIDE}x{MAX_SIDE}"
        raise CommandError(f"--size must be from {bounds}; it was {words}")
    return width, height


async def _paint(daemon: reach.Reach, order: Order, count: int, keep: Callable[[Picture], None]) -> None:
    """Have the order painted so many times, with a progress bar, and give each picture to `keep`.

    As many are one job as the daemon takes. Raises `Refused` if one fails.
    """
    request, done = order.request, 0
    async with connect(daemon.url, daemon.token, client="underpaint generate", ssl=daemon.tls) as client:
        limits = client.welcome.limits
        at_once = max(1, min(limits.max_batch, limits.max_pixels // (request.width * request.height)))
        while done < count:
            batch = min(at_once, count - done)
            job = replace(request, batch=batch, seed=(request.seed + done) % SEEDS)
            for picture in await client.paint(job, order.tiles, watch=show):
                keep(picture)
            done += batch


def show(event: Event) -> None:
    """Progress as a bar, and in the end what was done otherwise than asked."""
    show_progress(event)
    if isinstance(event, Done):
        for notice in event.notices:
            print(f"underpaint: {notice}", file=sys.stderr)


def show_progress(event: Event, width: int = 32) -> None:
    """Draw a progress bar over the last one, if standard error is a terminal and the event tells of progress."""
    if not (isinstance(event, Progress) and sys.stderr.isatty()):
        return
    filled = round(event.fraction * width)
    bar = "█" * filled + "·" * (width - filled)
    end = "\n" if event.fraction == 1 else ""
    print(f"\r{bar} {event.phase:12}", end=end, file=sys.stderr, flush=True)
