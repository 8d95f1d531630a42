"""What is done as memory gets less: pictures are still made, and below the last rung the error says the numbers.

A model with random weights paints two pictures with guidance, while another model is idle in memory. On a CPU the
system itself holds each run, a process of its own, to so many bytes (`RLIMIT_DATA`); on CUDA, torch's allocator does.
From run to run there is less; a rung that was passed over is looked for in between. A rung counts if all pictures that
were made on it are as near to those without a limit as they should be (`BOUNDS`), and none counts if there was no run
in which even the last rung was too little and the error said how much was missing.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from report import Figure, show

SIDE = 384
BOUNDS = {"evict": 0.0, "tile": 4.0, "split": 0.05, "alone": 0.0, "fp8": 2.0, "fetched": 2.0}
"""What each rung may add to the mean difference from the pictures without a limit, in levels of 255.

Most change nothing but how sums are rounded; tiles see other statistics in the norms of a VAE; 8 bits are coarser than
32, and what is fetched for each pass is exact but for text encoders, which are kept in 8 bits then. These bounds were
set by what was measured; pictures of two seeds are 46 apart.
"""
ROUNDING = 0.05
"""May be added in any case, as want of memory also decides whether oneDNN is used."""
NARROW = 1.02
"""Limits that are nearer to each other have no other one in between."""
NUMBERS = re.compile(r"needed [\d.,]+ .?B more, and [\d.,]+ .?B were free")
MIB = 1 << 20


def main() -> None:
    """Paint with less and less memory, and print how many of the rungs were reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--most", type=int, default=600, help="MiB that the first limited run may have")
    parser.add_argument("--least", type=int, default=50, help="MiB that the last run may have")
    parser.add_argument("--side", type=int, default=SIDE, help="sides of the pictures, px")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    limits = np.geomspace(arguments.most, arguments.least, arguments.runs).astype(int).tolist()
    show(measure(limits, arguments.side, arguments.device), arguments.json)


def measure(limits: list[int], side: int = SIDE, device: str = "cpu") -> Figure:
    """The rows: for each limit, in MiB, the rungs that were reached, and how far off the pictures are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        free = in_process(folder, None, side, device)
        expected = np.load(folder / "pictures.npy").astype(float)
        rows: dict[int, dict[str, object]] = {}

        def run(limit: int) -> None:
            found = in_process(folder, limit, side, device)
            apart = None
            if found["error"] is None:
                apart = float(np.abs(np.load(folder / "pictures.npy") - expected).mean())
            rows[limit] = row_for(str(limit), found, apart)

        for limit in limits:
            run(limit)
        for rung in BOUNDS:
            while (between_two := between(rows, rung)) is not None:
                run(between_two)
    unlimited = row_for("none", free, 0.0)
    unlimited["note"] = f"the two pictures are {np.abs(expected[0] - expected[1]).mean():.1f} apart from each other"
    ordered = [unlimited, *(rows[limit] for limit in sorted(rows, reverse=True))]
    return Figure("memory", count_of(ordered), "rungs", f">= {len(BOUNDS)}", ordered)


def between(rows: Mapping[int, Mapping[str, object]], rung: str) -> int | None:
    """Where to look for a rung on which no picture was made: half way from the last limit above it to the one below."""
    order = list(BOUNDS)
    highest = {limit: max(map(order.index, rungs_of(row)), default=-1) for limit, row in rows.items()}
    if any(rung in rungs_of(row) and row["holds"] for row in rows.values()):
        return None
    above = min((limit for limit in rows if highest[limit] < order.index(rung)), default=None)
    below = max((limit for limit in rows if highest[limit] > order.index(rung)), default=None)
    if above is None or below is None or above < NARROW * below:
        return None
    limit = round((above * below) ** 0.5)
    return None if limit in rows else limit


def rungs_of(row: Mapping[str, object]) -> list[str]:
    """Those that were reached."""
    return [rung for rung in str(row["rungs"]).split(", ") if rung in BOUNDS]


def row_for(limit: str, found: dict[str, Any], apart: float | None) -> dict[str, object]:
    """What is printed of a run whose pictures are so far from those without a limit; None is for no pictures."""
    rungs = set(found["reached"])
    if "fetched" in rungs:
        rungs.discard("fp8")  # what is left of it is in the other's bound
    bound = ROUNDING + sum(BOUNDS[rung] for rung in rungs)
    return {
        "limit, MiB": limit,
        "rungs": ", ".join(found["reached"]) or "-",
        "apart, of 255": "" if apart is None else apart,
        "at most": "" if apart is None else bound,
        "holds": "" if apart is None else "yes" if apart <= bound else "NO",
        "note": found["error"] or "",
    }


def count_of(rows: list[dict[str, object]]) -> int:
    """The rungs on which all pictures were as they should be; none if no error told the numbers at the end."""
    if not NUMBERS.search(str(rows[-1]["note"])):
        return 0
    reached = {rung: True for rung in BOUNDS if any(rung in str(row["rungs"]) and row["holds"] for row in rows)}
    for row in rows:
        for rung in rungs_of(row):
            if row["holds"] == "NO":
                reached[rung] = False
    return sum(reached.values())


def in_process(folder: Path, limit: int | None, side: int, device: str) -> dict[str, Any]:
    """What a process of its own says, which was held to so many MiB."""
    context = get_context("forkserver")  # the libraries are imported once, and each run begins with nothing else
    context.set_forkserver_preload(["torch", "parities.tiny_unet", "underpaint_backend.engine.painting"])
    with ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(limited, folder, limit, side, device).result()
        except BrokenProcessPool as error:
            return {"error": f"the process ended: {error}", "reached": []}


def limited(folder: Path, limit: int | None, side: int, wanted: str) -> dict[str, Any]:
    """Paint under a limit in this process: the rungs that were reached, and the error if there was one."""
    import torch
    from underpaint_backend.engine.device import open_device
    from underpaint_backend.engine.exceptions import EngineError
    from underpaint_backend.engine.library import Library
    from underpaint_backend.engine.painting import Observer, Painting, paint
    from underpaint_backend.models.catalog import find_models

    torch.set_num_threads(1)  # each thread of a CPU keeps memory of its own
    device = open_device(wanted)
    library, entries = Library(device), find_models([folder])
    painting = Painting((64, 64), "a house", "blurred", 5.0, "ddim", 1, 1.0, (1,))
    observer = Observer(lambda phase: None, lambda step: None)

    def load(name: str) -> Any:
        return library.load(entries[name], lambda done: None, Event())

    # Another model was used before, so that the libraries have all that they want once in a process.
    paint(load("idle"), painting, observer, Event())
    held = library.residency.bytes
    if limit is not None:
        hold(limit * MIB - held, device)
    model, error = None, None
    try:
        model = load("painter")
        painting = replace(painting, size=(side, side), steps=2, seeds=(1, 2))
        np.save(folder / "pictures.npy", paint(model, painting, observer, Event()))
    except EngineError as failed:
        error = failed.info.message
    reached = [] if model is None else [rung.name.lower() for rung in sorted(model.ladder.reached)]
    return {"error": error, "reached": reached}


def hold(more: int, device: Any) -> None:
    """Let this process have so many bytes more than it has, on the device."""
    import torch

    if device.torch_device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device.torch_device)
        allowed = torch.cuda.memory_reserved(device.torch_device) + more
        torch.cuda.set_per_process_memory_fraction(max(0.0, allowed / total), device.torch_device)
        return
    import resource

    import psutil  # type: ignore[import-untyped]

    used = psutil.Process().memory_info().data
    resource.setrlimit(resource.RLIMIT_DATA, (used + more, resource.RLIM_INFINITY))


def build(folder: Path) -> None:
    """Write the model that paints, and a small one that is idle, both of Stable Diffusion's shape."""
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from parities.tiny_unet import build_tiny, described, diffusion_scheduler, tokenizer
    from transformers import CLIPTextConfig, CLIPTextModel
    from underpaint_backend.models.catalog import DESCRIPTION

    build_tiny(folder / "idle", 9)
    torch.manual_seed(0)
    words = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        max_position_embeddings=words.model_max_length,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(64, 64, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=words,
        unet=UNet2DConditionModel(
            sample_size=48,
            block_out_channels=(96, 192, 384),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=256,
        ),
        scheduler=diffusion_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "painter")
    entry = described(folder / "painter", "stable_diffusion", name="Painter")
    large = replace(entry.model, native_area=SIDE * SIDE)
    (folder / "painter" / DESCRIPTION).write_text(json.dumps(large.to_wire()))


if __name__ == "__main__":
    main()
