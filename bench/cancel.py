"""How long a cancelled job goes on: from the moment of cancelling to the exception that ends it.

Two models with random weights, on a CPU: one of the size of stable-diffusion-inpainting, and one with FLUX.1's widths
(3072, text encoder 4096) but few blocks. Each is cancelled at random moments inside of text encoding and VAE encoding,
a denoising step, a VAE decoding, and loading.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event, Timer
from unittest.mock import patch

import overhead
import torch
from parities import tiny_flux1
from report import Figure, show
from underpaint_backend.engine.cancel import Cancelled, cancellable_loading, watching
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.families import Conditions, Region
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.models.catalog import DESCRIPTION, Entry, find_models

SIDE = 512
PROMPT = "a lighthouse between two old trees " * 8
GOAL, WORST = 100.0, 300.0
FLUX = "random-flux1"
FOLDER = overhead.FOLDER.parent


@dataclass(frozen=True)
class Place:
    """Something that takes long, and can be cancelled."""

    model: str
    name: str
    work: Callable[[Event], object]


def main() -> None:
    """Cancel both models in all places and print the largest of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="cancellations in each place")
    parser.add_argument("--side", type=int, default=SIDE, help="sides of the picture, px")
    parser.add_argument("--models", type=Path, help="a folder of other models than those two")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    entries = entries_in(arguments.models) if arguments.models else [built_sd(), built_flux()]
    show(measure(entries, arguments.runs, arguments.side), arguments.json)


def measure(entries: list[Entry], runs: int, side: int) -> Figure:
    """Rows: milliseconds from cancelling to its end, for each model and place."""
    rows: list[dict[str, object]] = []
    for entry in entries:
        library = Library(open_device("cpu"))
        for place in places(library, entry, side):
            whole, waits = cancelled_in(place, runs)
            median, worst = statistics.median(waits), max(waits)
            names = {"model": place.model, "place": place.name, "whole, ms": whole}
            rows.append({**names, "median, ms": median, "worst, ms": worst, "held": median <= GOAL and worst <= WORST})
        library.clear()
    return Figure("cancel", max(float(str(row["median, ms"])) for row in rows), "ms", f"<= {GOAL:g}", rows)


def cancelled_in(place: Place, runs: int) -> tuple[float, list[float]]:
    """Milliseconds of the whole work, and from each cancellation to its end."""
    random = Random(place.model + place.name)
    waits: list[float] = []
    began = time.perf_counter()
    place.work(Event())
    whole = time.perf_counter() - began
    while len(waits) < runs:
        waited = cancelled_once(place, random.uniform(0, 0.9 * whole))
        if waited is not None:
            waits.append(1000 * waited)
        else:  # the machine was faster this time
            whole *= 0.9
    return 1000 * whole, waits


def cancelled_once(place: Place, after: float) -> float | None:
    """Seconds from cancelling, `after` seconds from the beginning, to the end; None if it was done before."""
    event, moments = Event(), []

    def cancel() -> None:
        moments.append(time.perf_counter())
        event.set()

    timer = Timer(after, cancel)
    timer.start()
    try:
        place.work(event)
    except Cancelled:
        return time.perf_counter() - moments[0]
    finally:
        timer.cancel()
    return None


def places(library: Library, entry: Entry, side: int) -> list[Place]:
    """Where a model can be cancelled. Each is what a painting does there, in the same contexts."""
    name = entry.model.id
    model = library.load(entry, lambda done: None, Event())
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def inside(work: Callable[[], object]) -> Callable[[Event], object]:
        def run(cancelled: Event) -> None:
            with torch.inference_mode(), watching(library.residency, cancelled):
                work()

        return run

    with torch.inference_mode():
        latents = model.family.encode(picture)
        predict, timestep = predictor(model, latents, side)

    def load(cancelled: Event) -> None:
        library.residency.clear()
        with cancellable_loading(cancelled):
            model.family.parts.load(lambda done: None)

    return [
        Place(name, "text encoding", inside(lambda: model.family.encode_prompt(PROMPT))),
        Place(name, "VAE encoding", inside(lambda: model.family.encode(picture))),
        Place(name, "a step", inside(lambda: predict(latents, timestep))),
        Place(name, "VAE decoding", inside(lambda: model.family.decode(latents))),
        Place(name, "loading", load),
    ]


def predictor(
    model: LoadedModel, latents: torch.Tensor, side: int
) -> tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], torch.Tensor]:
    """One evaluation of the denoiser with the model's own guidance, and a timestep in the middle."""
    family, guidance = model.family, model.description.default_guidance
    mask, coverage = torch.ones(1, 1, *latents.shape[-2:]), torch.ones(1, 1, side, side)
    conditions = Conditions(
        prompt=family.encode_prompt(PROMPT),
        negative_prompt=family.encode_prompt("") if family.is_guided(guidance) else None,
        guidance=guidance,
        size=(side, side),
        region=Region(latents, mask, coverage) if model.takes_mask else None,
    )
    timesteps = family.schedule(model.description.default_scheduler, 4, 1.0, (side, side)).timesteps
    return family.predictor(conditions, 1), timesteps[2]


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
