"""What is done as memory gets less: pictures are still made, and below the last rung the error says the numbers.

A model with random weights paints two pictures with guidance, while another model is idle in memory. On a CPU the
system itself holds each run, a process of its own, to so many bytes (`RLIMIT_DATA`); on CUDA, torch's allocator does.
From run to run there is less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from report import Figure, show

ROOT = Path(__file__).parents[1]
SIDE = 384
RUNGS = ("evict", "tile", "split", "alone", "fp8", "fetched")
MIB = 1 << 20


def main() -> None:
    """Paint with less and less memory, and print how many of the rungs were reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=14)
    parser.add_argument("--most", type=int, default=1200, help="MiB that the first limited run may have")
    parser.add_argument("--least", type=int, default=60, help="MiB that the last run may have")
    parser.add_argument("--side", type=int, default=SIDE, help="sides of the pictures, px")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--limited", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        print(json.dumps(limited(arguments.folder, arguments.limited, arguments.side, arguments.device)))
        return
    show(measure(arguments), arguments.json)


def measure(arguments: argparse.Namespace) -> Figure:
    """The rows: for each limit the rungs that were reached, and how far the pictures are from those without a limit."""
    steps = np.geomspace(arguments.most, arguments.least, arguments.runs)
    rows, reached = [], set()
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        expected: Any = None
        for limit in (None, *(int(step) for step in steps)):
            found = in_process(Path(folder), limit, arguments)
            pictures = np.load(Path(folder) / "pictures.npy") if found["error"] is None else None
            if expected is None:
                expected = pictures
            if pictures is not None:
                reached |= set(found["reached"])
            off = "" if pictures is None else float(np.abs(pictures.astype(float) - expected).mean())
            rows.append(
                {
                    "limit, MiB": limit or "none",
                    "rungs": ", ".join(found["reached"]) or "-",
                    "mean difference, of 255": off,
                    "error": found["error"] or "",
                }
            )
    return Figure("memory", len(reached), "rungs", f">= {len(RUNGS)}", rows)


def in_process(folder: Path, limit: int | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own says, which was held to so many MiB."""
    command = [sys.executable, __file__, "--folder", str(folder), "--side", str(arguments.side)]
    words = [] if limit is None else ["--limited", str(limit)]
    run = subprocess.run([*command, *words, "--device", arguments.device], capture_output=True, text=True, cwd=ROOT)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [""])[-1]
        return {"error": f"the process ended with {run.returncode}: {last}", "reached": []}
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


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
    model = None
    try:
        model = load("painter")
        painting = replace(painting, size=(side, side), steps=2, seeds=(1, 2))
        np.save(folder / "pictures.npy", paint(model, painting, observer, Event()))
        error = None
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
