"""Stable Diffusion 1.5 and SDXL, with 4 and 9 channels and with an IP-Adapter, beside diffusers' pipelines for each.

The classic pipelines get networks of their own, read from the same files, and schedulers made here by hand.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from threading import Event
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, Source, paint_latents
from underpaint_backend.engine.schedulers import NAMES
from underpaint_backend.models.catalog import Entry

from . import Case, Measured, difference, most_likely_latents
from .oracle import painting_error
from .tiny_unet import SEEN_SIDE, add_ip_adapter, build_tiny, build_tiny_xl

SIZE = 64
STEPS = 6
GUIDANCE = 3.0
PROMPT, NEGATIVE = "a red circle", "blue stripes"
SEED = 11
WORDS_ALONE = "text to image"

CLASSIC: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "ddpm": (diffusers.DDPMScheduler, {"clip_sample": False}),
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "dpm++2m": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpm++2m_karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "dpm++sde": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {"clip_sample": False}),
}
"""What artists' names of schedulers stand for, said a second time."""


@dataclass(frozen=True)
class Task:
    """What is asked for: at which strength, and of which canvas. `pipeline` is the last word of diffusers' class."""

    name: str
    pipeline: str
    strength: float = 1.0
    source: Source | None = None


@dataclass(frozen=True)
class Pair:
    """One tiny model, loaded by us, and the parts for the classic pipelines; `prefix` is what their names begin with.

    `references` are pictures [H, W, 3], 0..255, where the model takes them.
    """

    model: LoadedModel
    prefix: str
    parts: Mapping[str, Any]
    references: tuple[Any, ...] = ()

    def painting(self, task: Task, scheduler: str, steps: int = STEPS) -> Painting:
        """What our side is asked for."""
        return Painting(
            size=(SIZE, SIZE),
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            guidance=GUIDANCE,
            scheduler=scheduler,
            steps=steps,
            strength=task.strength,
            seeds=[SEED],
            source=None if task.name == WORDS_ALONE else task.source,
            references=self.references,
        )

    def paint(self, task: Task, scheduler: str, steps: int = STEPS) -> Tensor:
        """Our latents, by the same way as every job's."""
        observer = Observer(lambda phase: None, lambda step: None)
        with torch.inference_mode():
            return paint_latents(self.model, self.painting(task, scheduler, steps), observer)

    def paint_classically(self, task: Task, scheduler: str, steps: int = STEPS) -> Tensor:
        """The latents of diffusers' own pipeline."""
        cls, settings = CLASSIC[scheduler]
        made = cls.from_config(self.parts["scheduler"].config, **settings)
        pipeline = getattr(diffusers, self.prefix + task.pipeline)(**{**self.parts, "scheduler": made})
        pipeline.set_progress_bar_config(disable=True)
        if scheduler == "pndm":
            pipeline.get_timesteps = partial(looking_twice, made)
        options: dict[str, Any] = {}
        if task.source is not None:
            options["image"] = torch.tensor(task.source.pixels).movedim(-1, 0)[None] / 255
            options["strength"] = task.strength
        if "Inpaint" in task.pipeline and task.source is not None:
            options["mask_image"] = torch.tensor(task.source.coverage)[None, None]
        if "Img2Img" not in task.pipeline:
            options |= {"height": SIZE, "width": SIZE}
        if self.references:
            options["ip_adapter_image"] = [[Image.fromarray(pixels) for pixels in self.references]]
        with most_likely_latents():
            latents: Tensor = pipeline(
                prompt=PROMPT,
                negative_prompt=NEGATIVE,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                generator=torch.Generator().manual_seed(SEED),
                output_type="latent",
                **options,
            ).images
        return latents


def canvas(whole: bool = False) -> Source:
    """A canvas and a selection whose edges lie on those of latent cells, as the classic pipelines know no others."""
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    coverage = np.full((SIZE, SIZE), float(whole), np.float32)
    coverage[16:48, 8:48] = 1
    return Source(pixels, coverage)


def blank() -> Source:
    """A canvas that is to be painted all over: what a model that fills masks takes for words alone."""
    return Source(np.zeros((SIZE, SIZE, 3), np.uint8), np.ones((SIZE, SIZE), np.float32))


PLAIN_TASKS = (
    Task(WORDS_ALONE, "Pipeline"),
    Task("refine", "Img2ImgPipeline", 0.6, canvas(whole=True)),
    Task("inpaint", "InpaintPipeline", 1.0, canvas()),
    Task("inpaint at 0.6", "InpaintPipeline", 0.6, canvas()),
)
"""Of models that know no masks."""

FILL_TASKS = (
    Task(WORDS_ALONE, "InpaintPipeline", 1.0, blank()),
    Task("refine", "InpaintPipeline", 0.6, canvas(whole=True)),
    Task("inpaint", "InpaintPipeline", 1.0, canvas()),
    Task("inpaint at 0.6", "InpaintPipeline", 0.6, canvas()),
)
"""Of models that were trained to fill masks."""

MODELS: Mapping[str, tuple[Callable[[Path], Entry], tuple[Task, ...]]] = {
    "SD 1.5": (partial(build_tiny, channels=4), PLAIN_TASKS),
    "SD 1.5 inpainting": (partial(build_tiny, channels=9), FILL_TASKS),
    "SDXL": (partial(build_tiny_xl, channels=4), PLAIN_TASKS),
    "SDXL inpainting": (partial(build_tiny_xl, channels=9), FILL_TASKS),
    "SD 1.5, IP-Adapter": (lambda folder: add_ip_adapter(build_tiny(folder, 4)), PLAIN_TASKS),
    "SD 1.5 inpainting, IP-Adapter": (lambda folder: add_ip_adapter(build_tiny(folder, 9)), FILL_TASKS[2:]),
    "SD 1.5, IP-Adapter Plus": (lambda folder: add_ip_adapter(build_tiny(folder, 4), plus=True), PLAIN_TASKS[::2]),
    "SDXL, IP-Adapter": (lambda folder: add_ip_adapter(build_tiny_xl(folder, 4)), PLAIN_TASKS),
    "SDXL inpainting, IP-Adapter": (lambda folder: add_ip_adapter(build_tiny_xl(folder, 9)), FILL_TASKS[2:]),
    "SDXL, IP-Adapter Plus": (lambda folder: add_ip_adapter(build_tiny_xl(folder, 4), plus=True), PLAIN_TASKS),
}
ADAPTED = ("ddim", "euler", "dpm++2m")
"""Schedulers that are tried with an IP-Adapter, which knows nothing of them."""


def cases() -> Iterator[Case]:
    """Every family, task and scheduler."""
    for family, (_build, tasks) in MODELS.items():
        for task in tasks:
            for scheduler in ADAPTED if "IP-Adapter" in family else NAMES:
                yield Case(family, task.name, scheduler, partial(measure, family, task, scheduler))


def measure(family: str, task: Task, scheduler: str) -> Measured:
    """One row."""
    pair = paired(family)
    classic = pair.paint_classically(task, scheduler)
    apart = difference(pair.paint(task, scheduler), classic)
    return Measured(apart, painting_error(pair.model, pair.painting(task, scheduler)))


@cache
def paired(family: str) -> Pair:
    """The tiny model called `family` in `MODELS`, loaded twice. Its files stay until the process ends."""
    build, _tasks = MODELS[family]
    folder = Path(mkdtemp(prefix="underpaint-parity-"))
    atexit.register(rmtree, folder, ignore_errors=True)
    entry = build(folder / "tiny")
    model = Library(open_device("cpu")).load(entry, lambda fraction: None, Event())
    prefix = "StableDiffusionXL" if entry.model.family == "stable_diffusion_xl" else "StableDiffusion"
    pipeline = getattr(diffusers, f"{prefix}InpaintPipeline").from_pretrained(entry.folder, local_files_only=True)
    if "IP-Adapter" not in family:
        return Pair(model, prefix, pipeline.components)
    pipeline.load_ip_adapter(
        str(entry.folder), subfolder="ip_adapter", weight_name="ip-adapter.safetensors", image_encoder_folder=None
    )
    numbers = np.random.default_rng(2)
    shapes = ((SEEN_SIDE, SEEN_SIDE, 3), (48, 80, 3))
    references = tuple(numbers.integers(0, 256, shape, np.uint8) for shape in shapes)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SEEN_SIDE}, crop_size=SEEN_SIDE)
    encoder = CLIPVisionModelWithProjection.from_pretrained(entry.folder / "image_encoder", local_files_only=True)
    parts = {**pipeline.components, "image_encoder": encoder.eval(), "feature_extractor": processor}
    return Pair(model, prefix, parts, references)


def looking_twice(
    scheduler: Any, num_inference_steps: int, strength: float, device: Any, **_: Any
) -> tuple[Tensor, int]:
    """PNDM's timesteps from where a run at this strength begins.

    It looks twice at where its first step leads. The classic pipelines forget that where they begin later.
    """
    every = list(dict.fromkeys(scheduler.timesteps.tolist()))
    left = every[num_inference_steps - int(num_inference_steps * strength) :]
    return torch.tensor(left[:2] + left[1:]), len(left) + 1
