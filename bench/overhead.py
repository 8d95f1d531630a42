"""What Underpaint costs: a job through the plugin's network thread, server and worker, over diffusers called directly.

The model has the size of stable-diffusion-inpainting, with random weights; both sides inpaint the same pictures at
256 x 256 px with the same prompts, seeds, scheduler, precision and number of threads, in turns. Every round has a new
prompt and a new picture, so that no cache helps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from plugin_client import PluginClient
from report import Figure, show
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from underpaint_backend.launch import Launched, launched
from underpaint_backend.models.catalog import DESCRIPTION
from underpaint_krita._vendor.underpaint_protocol.messages import Request
from underpaint_protocol.messages import Model

SIDE = 256
GUIDANCE = 7.5
MODEL = "random-sd-inpainting"
FOLDER = Path(__file__).parents[1] / "build" / "bench" / MODEL


@dataclass(frozen=True)
class Round:
    """What both sides paint in one round."""

    prompt: str
    seed: int
    steps: int
    canvas: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def main() -> None:
    """Run both sides in turns and print the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not (FOLDER / DESCRIPTION).exists():
        build(FOLDER)
    rounds = [new_round(number, arguments.steps) for number in range(arguments.rounds + 1)]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        models = ("--models", str(FOLDER.parent))
        with launched(home, "--device", "cpu", "--threads", str(arguments.threads), *models) as daemon:
            timed = measure(daemon, rounds)
    direct, daemon_side = zip(*timed, strict=True)
    rows = [
        {"round": number, "diffusers, s": alone, "Underpaint, s": served, "ratio": served / alone}
        for number, (alone, served) in enumerate(timed, start=1)
    ]
    ratio = statistics.median(daemon_side) / statistics.median(direct)
    show(Figure("overhead", ratio, "x", "<= 1.05", rows), arguments.json)


def measure(daemon: Launched, rounds: list[Round]) -> list[tuple[float, float]]:
    """Seconds of both sides in each round but the first, which warms them up.

    The side that goes first changes from round to round, so that a machine that slows down harms both alike.
    """
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(
        FOLDER, variant="fp16", dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    client = PluginClient(daemon.url, daemon.token)
    timed = []
    for number, work in enumerate(rounds):
        served = by_underpaint(client, work) if number % 2 else None
        alone = by_diffusers(pipeline, work)
        timed.append((alone, served or by_underpaint(client, work)))
    client.close()
    return timed[1:]


def by_diffusers(pipeline: Any, work: Round) -> float:
    """Seconds that the classic pipeline takes."""
    began = time.perf_counter()
    pipeline(
        prompt=work.prompt,
        negative_prompt="blurred",
        image=torch.from_numpy(work.canvas).movedim(-1, 0)[None] / 255,
        mask_image=torch.from_numpy(work.mask)[None, None] / 255,
        height=SIDE,
        width=SIDE,
        num_inference_steps=work.steps,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(work.seed),
        output_type="np",
    )
    return time.perf_counter() - began


def by_underpaint(client: PluginClient, work: Round) -> float:
    """Seconds from the request to the end of the job, with the picture in the plugin's hands."""
    request = Request(
        model=MODEL,
        task="inpaint",
        width=SIDE,
        height=SIDE,
        prompt=work.prompt,
        negative_prompt="blurred",
        steps=work.steps,
        guidance=GUIDANCE,
        scheduler="ddim",
        seed=work.seed,
    )
    canvas = np.dstack([work.canvas[..., ::-1], np.full((SIDE, SIDE), 255, np.uint8)]).tobytes()
    began = time.perf_counter()
    _, previews = client.paint(f"round-{work.seed}", request, canvas, work.mask.tobytes())
    seconds = time.perf_counter() - began
    if previews < work.steps - 1:
        raise SystemExit(f"only {previews} previews came for {work.steps} steps")
    return seconds


def new_round(number: int, steps: int) -> Round:
    """A round with a canvas and a prompt of its own."""
    canvas = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[64:192, 64:192] = 255
    return Round(f"painting number {number}", number, steps, canvas, mask)


def build(folder: Path) -> None:
    """Write a model of stable-diffusion-inpainting's shape with random weights, in half precision: 2 GB."""
    torch.manual_seed(0)
    pipeline = StableDiffusionInpaintPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(),
        unet=UNet2DConditionModel(sample_size=64, in_channels=9, cross_attention_dim=768),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder, variant="fp16")
    model = Model(
        id=MODEL,
        name="Random weights of Stable Diffusion's size",
        family="stable_diffusion",
        tasks=("inpaint",),
        schedulers=("ddim",),
        native_area=SIDE * SIDE,
        size_multiple=8,
        default_steps=4,
        default_guidance=GUIDANCE,
        default_scheduler="ddim",
    )
    (folder / DESCRIPTION).write_text(json.dumps(model.to_wire()), encoding="utf-8")


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )


def _text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    )


def _tokenizer() -> CLIPTokenizer:
    start, end = "<|startoftext|>", "<|endoftext|>"
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), start, end]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        unk_token=end,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        model_max_length=77,
    )


if __name__ == "__main__":
    main()
