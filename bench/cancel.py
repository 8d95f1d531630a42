"""How long a cancelled job goes on: from the `cancel` that its host sends to the message that ends it.

Two models with random weights, on a CPU: one of the size of stable-diffusion-inpainting, and one with FLUX.1's widths
(3072, text encoder 4096) but few blocks. Each is cancelled at random moments while a worker, at the far end of two
pipes, loads it, encodes text, encodes a picture, is in a denoising step, and decodes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from unittest.mock import patch

import numpy as np
import overhead
import torch
from parities import tiny_flux1
from report import Figure, show
from underpaint_backend.models.catalog import DESCRIPTION, Entry, find_models
from underpaint_protocol.messages import Cancelled, Done, Request, Submit
from worker_line import Heard, Line, line_to, named

SIDE = 512
GOAL, WORST = 100.0, 300.0
FLUX = "random-flux1"
FOLDER = overhead.FOLDER.parent
UNLIKELY = 50
"""Cancellations that come too late before something is wrong."""


@dataclass(frozen=True)
class Place:
    """A phase of a job in which there is nothing else to do than this. `new` says what no job before had."""

    name: str
    phase: str
    new: tuple[str, ...] = ()


PLACES = (
    Place("loading", "loading", ("worker",)),
    Place("text encoding", "encoding", ("prompt",)),
    Place("VAE encoding", "encoding", ("canvas",)),
    Place("a step", "denoising"),
    Place("VAE decoding", "decoding"),
)


def main() -> None:
    """Cancel both models in all places and print the largest of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="cancellations in each place")
    parser.add_argument("--side", type=int, default=SIDE, help="sides of the picture, px")
    parser.add_argument("--models", type=Path, help="a folder of other models than those two")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    entries = entries_in(arguments.models) if arguments.models else [built_sd(), built_flux()]
    show(measure(entries, arguments.runs, arguments.side), arguments.json)


def measure(entries: list[Entry], runs: int, side: int) -> Figure:
    """Rows: milliseconds from cancelling to its end, for each model and place."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, UNDERPAINT_HOME=folder):
        for entry in entries:
            root = Path(folder) / "models"
            at_side(entry, root / entry.folder.name, side)
            with line_to([root]) as line:
                jobs = Jobs(line, entry.model.id, side)
                for place in PLACES:
                    whole, waits = jobs.cancelled_in(place, runs)
                    median, worst = statistics.median(waits), max(waits)
                    names = {"model": entry.model.id, "place": place.name, "whole, ms": whole}
                    held = median <= GOAL and worst <= WORST
                    print(f"{entry.model.id}, {place.name}: {median:.0f} ms, at worst {worst:.0f} ms", file=sys.stderr)
                    rows.append({**names, "median, ms": median, "worst, ms": worst, "held": held})
    return Figure("cancel", max(float(str(row["median, ms"])) for row in rows), "ms", f"<= {GOAL:g}", rows)


def at_side(entry: Entry, folder: Path, side: int) -> None:
    """The model once more in `folder`, whose own area is that of the picture, so that it is seen as a whole."""
    folder.mkdir(parents=True)
    for part in entry.folder.iterdir():
        if part.name != DESCRIPTION:
            (folder / part.name).symlink_to(part.resolve())
    model = replace(entry.model, native_area=side * side)
    (folder / DESCRIPTION).write_text(json.dumps(model.to_wire()), encoding="utf-8")


class Jobs:
    """Jobs of one model, of which each does nothing that it does not have to: prompts and canvases are kept."""

    def __init__(self, line: Line, model: str, side: int) -> None:
        self._line, self._model, self._side = line, model, side
        self._number = 0
        self._made = {"prompt": 0, "canvas": 0}
        self._random = Random(model)

    def cancelled_in(self, place: Place, runs: int) -> tuple[float, list[float]]:
        """Milliseconds of the whole of a place, and from each cancellation in it to its end."""
        if "worker" not in place.new:
            self._run(place, None, new=())  # what is not new is warm
        whole = self._run(place, None).whole(place.phase)
        waits: list[float] = []
        late = 0
        while len(waits) < runs:
            heard = self._run(place, (place.phase, self._random.uniform(0, 0.9 * whole)))
            if isinstance(heard.end, Cancelled):
                waits.append(1000 * (heard.ended - heard.cancelled[0]))
            else:  # the machine was faster this time
                whole, late = 0.9 * whole, late + 1
                if late > UNLIKELY:
                    raise SystemExit(f"{place.name} of {self._model} is over before it can be cancelled")
        return 1000 * whole, waits

    def _run(self, place: Place, after: tuple[str, float] | None, new: tuple[str, ...] | None = None) -> Heard:
        """One job. Without a moment to cancel it, it is cancelled where the place is over, or at its end."""
        self._number += 1
        for what in place.new if new is None else new:
            if what == "worker":
                self._line.renew()
            else:
                self._made[what] = self._number
        drawn = np.random.default_rng(self._made["canvas"])
        canvas = drawn.integers(0, 256, (self._side, self._side, 4), np.uint8)
        mask = np.zeros((self._side, self._side), np.uint8)
        mask[self._side // 4 : -self._side // 4, self._side // 4 : -self._side // 4] = 255
        (image, selection), tiles = named(canvas, mask)
        request = Request(
            self._model,
            "inpaint",
            self._side,
            self._side,
            prompt=f"{self._made['prompt']}: " + "a lighthouse between two old trees " * 8,
            steps=1,
            guidance=None if place.phase == "denoising" else 1.0,
            image=image,
            mask=selection,
        )
        following = {"loading": "preparing", "encoding": "denoising", "denoising": "decoding"}.get(place.phase)
        if after is None and following is not None:
            after = (following, 0.0)
        heard = self._line.run(Submit(f"job-{self._number}", request, previews=False), tiles, after)
        if not isinstance(heard.end, (Done, Cancelled)):
            raise SystemExit(f"a job ended in {heard.end}")
        return heard


def entries_in(folder: Path) -> list[Entry]:
    """The models in a folder, without those of the catalog that are elsewhere."""
    return [entry for entry in find_models([folder]).values() if entry.folder.parent == folder]


def built_sd() -> Entry:
    """The model of Stable Diffusion's size that `bench overhead` has, too."""
    if not (overhead.FOLDER / DESCRIPTION).exists():
        overhead.build(overhead.FOLDER)
    return find_models([FOLDER])[overhead.MODEL]


def built_flux() -> Entry:
    """A model with the widths of FLUX.1, one block of each kind (two of the plain one), and one of T5's 24 layers."""
    folder = FOLDER / FLUX
    if not (folder / DESCRIPTION).exists():
        heads = {"attention_head_dim": 128, "num_attention_heads": 24, "axes_dims_rope": (16, 56, 56)}
        transformer = {**heads, "joint_attention_dim": 4096, "pooled_projection_dim": 768}
        vae = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32}
        clip = {"hidden_size": 768, "projection_dim": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        t5 = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "num_layers": 1}
        torch.set_default_dtype(torch.bfloat16)  # half the disk
        with (
            patch.dict(tiny_flux1.TRANSFORMER, transformer),
            patch.dict(tiny_flux1.VAE, vae),
            patch.dict(tiny_flux1.CLIP, clip),
            patch.dict(tiny_flux1.T5, t5),
        ):
            tiny_flux1.build_tiny_flux1(folder, "dev")
        torch.set_default_dtype(torch.float32)
    return find_models([FOLDER])["tiny-flux1-dev"]


if __name__ == "__main__":
    main()
