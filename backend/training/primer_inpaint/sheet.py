"""A contact sheet of what the newest checkpoint paints, to look at while it trains.

python -m primer_inpaint.sheet [--build FOLDER] [--steps N] [--guidance G]
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .backgrounds import draw_background
from .colours import NAMES, nearest
from .export import load_pipeline
from .masks import draw_box
from .samples import SIZE
from .shapes import SHAPES, Box, cover
from .train import REPOSITORY

OTHER_PROMPTS = (
    "a red and white striped circle",
    "a shiny green apple",
    "purple",
    "rough brown stone",
    "a blue heart on a yellow background",
    "a dotted pink star",
    "ein roter Ball",
    "",
)
HELD_OUT = 70_001
COLUMNS = 8


def _cases() -> list[tuple[str, str, Image.Image, Image.Image]]:
    """`(colour or "", prompt, picture, mask)` of every cell."""
    prompts = [(colour, f"a {colour} {SHAPES[i % 8].name}") for i, colour in enumerate(NAMES * 2)]
    cells = []
    for number, (colour, prompt) in enumerate([*prompts, *(("", other) for other in OTHER_PROMPTS)]):
        rng = np.random.default_rng([HELD_OUT, number])
        box = draw_box(rng, SIZE)
        mask = cover(SHAPES[0], box if number % 3 else Box(64, 64, 38, 38), SIZE) > 0.5
        if "background" in prompt:
            mask = np.ones_like(mask)
        below = draw_background(rng, SIZE) if number > 11 else np.full((SIZE, SIZE, 3), 0.5)
        pixels = (below * 255).astype(np.uint8)
        cells.append((colour, prompt, Image.fromarray(pixels), Image.fromarray((mask * 255).astype(np.uint8))))
    return cells


def main(argv: list[str]) -> int:
    """Write `sheet.png` into the build folder and print how many colours are right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=REPOSITORY / "build" / "primer")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=3.0)
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    pipeline = load_pipeline(arguments.build)
    pipeline.set_progress_bar_config(disable=True)
    cells = _cases()
    painted = pipeline(
        [prompt for _, prompt, _, _ in cells],
        image=[picture for _, _, picture, _ in cells],
        mask_image=[mask for _, _, _, mask in cells],
        height=SIZE,
        width=SIZE,
        num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance,
        generator=[torch.Generator().manual_seed(number) for number in range(len(cells))],
    ).images
    rows = -(-len(cells) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIZE, rows * SIZE))
    right = []
    for number, ((colour, prompt, picture, mask), result) in enumerate(zip(cells, painted, strict=True)):
        shown = Image.composite(result, picture, mask)
        sheet.paste(shown, (number % COLUMNS * SIZE, number // COLUMNS * SIZE))
        seen = nearest(np.median(np.asarray(shown)[np.asarray(mask) > 127], axis=0))
        if colour:
            right.append(seen == colour)
        if colour and seen != colour:
            print(f"{prompt}: {seen}")
    sheet.save(arguments.build / "sheet.png")
    print(f"{sum(right)} of {len(right)} colours right")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
