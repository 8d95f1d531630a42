"""How often the built-in model paints the colour that it was asked for.

Every named colour in every shape is painted into an elliptical, soft selection on four backgrounds, two of them real
photographs, on the way that a selection in Krita takes: a context box around the selection, the model's working size,
and the result laid over the canvas with the selection's softness. A picture is right if, of the twelve named colours,
the one nearest in L*a*b* to the median of the selected pixels (selected by half or more) is the one in the prompt.
All seeds are others than those of the training pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

sys.path.append(str(Path(__file__).parent.parent / "backend" / "training"))

from primer_inpaint.backgrounds import draw_background
from primer_inpaint.colours import NAMES, nearest
from primer_inpaint.shapes import SHAPES
from report import Figure, show
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, Source, paint
from underpaint_backend.imaging.composite import cut_out
from underpaint_backend.imaging.prepare import prepare
from underpaint_backend.models.catalog import Entry, default_roots, find_models
from underpaint_protocol.geometry import Box, context_box, working_size

Pixels = NDArray[np.uint8]
PHOTOGRAPHS = Path(__file__).parent / "photographs"
HELD_OUT = 90_210
"""Seed of this measurement; training pictures use small ones."""
SIDE = 256
"""Sides of the backgrounds that are drawn, in px."""


@dataclass(frozen=True)
class Case:
    """One picture to paint."""

    colour: str
    shape: str
    background: str
    number: int


@dataclass(frozen=True)
class Outcome:
    """The colour names found in the selection before and after painting."""

    case: Case
    before: str
    after: str

    @property
    def hit(self) -> bool:
        """Whether the selection has the prompted colour."""
        return self.after == self.case.colour


@dataclass(frozen=True)
class Settings:
    """How to sample."""

    steps: int
    guidance: float
    scheduler: str


def main() -> None:
    """Paint all cases and print how many are right."""
    arguments = _arguments()
    model = _entry().model
    settings = Settings(
        arguments.steps or model.default_steps,
        model.default_guidance if arguments.guidance is None else arguments.guidance,
        arguments.scheduler or model.default_scheduler,
    )
    outcomes = judge_all(settings, cases(arguments.quick), arguments.processes)
    hits = _share(outcome.hit for outcome in outcomes)
    show(Figure("primer", hits, "%", ">= 90", rows(outcomes)), arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="two shapes on two backgrounds only")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--scheduler")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


def cases(quick: bool = False) -> list[Case]:
    """All combinations of colour, shape and background."""
    shapes = [shape.name for shape in SHAPES][:: 4 if quick else 1]
    backgrounds = list(BACKGROUNDS)[:: 2 if quick else 1]
    combinations = [(c, s, b) for c in NAMES for s in shapes for b in backgrounds]
    return [Case(*names, number) for number, names in enumerate(combinations)]


def judge_all(settings: Settings, wanted: list[Case], processes: int) -> list[Outcome]:
    """Paint all cases, shared out among processes of one thread each: faster than one with several."""
    shares = [wanted[start::processes] for start in range(processes)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        judged = pool.map(_judge_share, [settings] * processes, shares)
        return sorted((outcome for share in judged for outcome in share), key=lambda outcome: outcome.case.number)


def _judge_share(settings: Settings, share: list[Case]) -> list[Outcome]:
    torch.set_num_threads(1)
    model = Library(open_device("cpu")).load(_entry(), lambda fraction: None, Event())
    return [judge(model, settings, case) for case in share]


def judge(model: LoadedModel, settings: Settings, case: Case) -> Outcome:
    """Paint one case and name the colours of its selection before and after."""
    rng = np.random.default_rng([HELD_OUT, case.number])
    canvas = BACKGROUNDS[case.background](rng)
    mask = draw_selection(rng, canvas.shape[1], canvas.shape[0])
    painted = paint_into(model, settings, canvas, mask, f"a {case.colour} {case.shape}", HELD_OUT + case.number)
    return Outcome(case, _colour_of(canvas, mask), _colour_of(painted, mask))


def draw_selection(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """A soft ellipse [height, width], 0..255, as an artist would draw around a thing."""
    half_height = rng.uniform(0.15, 0.3) * height
    half_width = half_height * rng.uniform(0.8, 1.25)
    x, y = (rng.uniform(half + 8, length - half - 8) for half, length in ((half_width, width), (half_height, height)))
    plane = Image.new("L", (width, height))
    ImageDraw.Draw(plane).ellipse((x - half_width, y - half_height, x + half_width, y + half_height), fill=255)
    return np.asarray(plane.filter(ImageFilter.GaussianBlur(rng.uniform(1, 4))))


def paint_into(model: LoadedModel, settings: Settings, canvas: Pixels, mask: Pixels, prompt: str, seed: int) -> Pixels:
    """The canvas [H, W, 3] with the prompt painted into the selection [H, W]."""
    height, width = mask.shape
    box = context_box(_bounds(mask), Box(0, 0, width, height))
    piece = np.s_[box.y : box.bottom, box.x : box.right]
    description = model.description
    size = working_size(box.width, box.height, description.native_area, description.size_multiple)
    prepared = prepare(canvas[piece], mask[piece], size, forget=not model.family.takes_mask)
    painting = Painting(
        size=size,
        prompt=prompt,
        negative_prompt="",
        guidance=settings.guidance,
        scheduler=settings.scheduler,
        steps=settings.steps,
        strength=1.0,
        seeds=[seed],
        source=Source(*prepared),
    )
    pictures = paint(model, painting, Observer(lambda phase: None, lambda step: None), Event())
    layer = cut_out(pictures[0], canvas[piece], mask[piece]).astype(np.float32)
    alpha = layer[..., 3:] / 255
    result = canvas.copy()
    result[piece] = (canvas[piece] * (1 - alpha) + layer[..., :3] * alpha).round().astype(np.uint8)
    return result


def rows(outcomes: list[Outcome]) -> list[dict[str, object]]:
    """Hit rates by colour, shape and background, then what guessing and doing nothing would reach."""
    table: list[dict[str, object]] = []
    for kind in ("colour", "shape", "background"):
        for name in dict.fromkeys(getattr(outcome.case, kind) for outcome in outcomes):
            group = [outcome for outcome in outcomes if getattr(outcome.case, kind) == name]
            wrong = sorted({outcome.after for outcome in group if not outcome.hit})
            table.append(_row(f"{kind} {name}", group, ", ".join(wrong) if kind == "colour" else ""))
    table.append(_row("all", outcomes, ""))
    chance = {"what": "guessing one of the colours", "pictures": "", "hits %": 100 / len(NAMES), "untouched %": ""}
    return [*table, {**chance, "taken for": ""}]


def _row(name: str, group: list[Outcome], taken_for: str) -> dict[str, object]:
    return {
        "what": name,
        "pictures": len(group),
        "hits %": _share(outcome.hit for outcome in group),
        "untouched %": _share(outcome.before == outcome.case.colour for outcome in group),
        "taken for": taken_for,
    }


def _share(values: Iterator[bool]) -> float:
    return 100 * float(np.mean(list(values)))


def _photograph(name: str) -> Callable[[np.random.Generator], Pixels]:
    return lambda rng: np.asarray(Image.open(PHOTOGRAPHS / name).convert("RGB"))


def _gray(rng: np.random.Generator) -> Pixels:
    return np.full((SIDE, SIDE, 3), 128, np.uint8)


def _drawn(rng: np.random.Generator) -> Pixels:
    return (draw_background(rng, SIDE) * 255).round().astype(np.uint8)


BACKGROUNDS: dict[str, Callable[[np.random.Generator], Pixels]] = {
    "gray canvas": _gray,
    "drawn": _drawn,
    "photograph of a cup": _photograph("coffee.jpg"),
    "photograph of a cat": _photograph("chelsea.jpg"),
}


def _bounds(mask: Pixels) -> Box:
    y, x = np.nonzero(mask)
    return Box(int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1)


def _colour_of(picture: Pixels, mask: Pixels) -> str:
    return nearest(np.median(picture[mask >= 128], axis=0))


def _entry() -> Entry:
    return find_models(default_roots())["primer-inpaint"]


if __name__ == "__main__":
    main()
