"""The whole way of one job without Krita: a photograph, a selection, a prompt, and a daemon that paints.

Writes `before.png`, `after.png` and `steps.png`, the previews side by side, beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter
from underpaint_backend.cli.generate import show_progress
from underpaint_backend.client import Refused, connect
from underpaint_backend.launch import launched
from underpaint_backend.pictures import Order, inpainting, lay_over, open_picture
from underpaint_protocol.client import Event, Picture
from underpaint_protocol.messages import Preview, Request

HERE = Path(__file__).resolve().parent
PHOTOGRAPH = HERE.parent / "bench" / "photographs" / "coffee.jpg"


@dataclass(frozen=True)
class Painting:
    """What came back for one order: the previews and the finished picture."""

    steps: Sequence[Image.Image]
    picture: Picture


def main() -> int:
    """Run the demonstration; the exit code is 1 if nothing could be painted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="a blue star")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=HERE, help="where the pictures go (default: beside this file)")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if not folder.is_dir():
        parser.error(f"there is no folder {folder}")
    canvas = open_picture(PHOTOGRAPH, "RGBA")
    mask = ellipse(canvas.size)
    settings = Request(
        model="primer-inpaint",
        task="inpaint",
        width=canvas.width,
        height=canvas.height,
        prompt=arguments.prompt,
        seed=arguments.seed,
    )
    order = inpainting(settings, canvas, mask)
    print(f"Painting “{arguments.prompt}” into an elliptical selection of {PHOTOGRAPH.name} …", flush=True)
    try:
        with tempfile.TemporaryDirectory() as home, launched(Path(home)) as daemon:
            painting = asyncio.run(paint(daemon.url, daemon.token, order))
    except (Refused, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    canvas.save(folder / "before.png")
    lay_over(canvas, painting.picture, order.box).save(folder / "after.png")
    side_by_side(painting.steps).save(folder / "steps.png")
    print(
        f"Look at before.png, after.png and steps.png in {folder}.\n"
        "The model that comes with Underpaint is tiny: it knows colours, simple shapes and textures.\n"
        "To go on in Krita:  python3 run.py krita"
    )
    return 0


def ellipse(size: tuple[int, int]) -> Image.Image:
    """A feathered elliptical selection in the middle of a picture of this size (mode "L")."""
    width, height = size
    mask = Image.new("L", size)
    radius = 0.38 * min(size)
    centre = (width / 2, height / 2)
    box = (centre[0] - radius * 1.15, centre[1] - radius, centre[0] + radius * 1.15, centre[1] + radius)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(4))


async def paint(url: str, token: str, order: Order) -> Painting:
    """Submit the order and follow it to its end. Raises `Refused` if it fails."""
    steps: list[Image.Image] = []

    def watch(event: Event) -> None:
        show_progress(event)
        if isinstance(event, Preview):
            steps.append(Image.open(io.BytesIO(event.data), formats=["JPEG"]))

    async with connect(url, token, client="demo") as client:
        (picture,) = await client.paint(order.request, order.tiles, watch=watch)
    return Painting(steps, picture)


def side_by_side(pictures: Sequence[Image.Image], height: int = 128) -> Image.Image:
    """The pictures in a row, enlarged to `height` px; at least one."""
    enlarged = [picture.resize((height * picture.width // picture.height, height)) for picture in pictures]
    row = Image.new("RGB", (sum(picture.width for picture in enlarged), height))
    left = 0
    for picture in enlarged:
        row.paste(picture, (left, 0))
        left += picture.width
    return row


if __name__ == "__main__":
    sys.exit(main())
