"""FLUX.1 beside the classic pipelines: schnell, dev, Fill, Redux and Kontext, each task with each scheduler.

Where no classic pipeline does what is compared, there is a loop written out here instead. That is so for the schedulers
that the pipelines refuse, for soft selections, which they make hard, and for several references, of which Redux' makes
a sum. The loop shares nothing with the engine: its own tokens, its own noise levels, its own steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxKontextInpaintPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxPriorReduxPipeline,
    UniPCMultistepScheduler,
)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from underpaint_backend.engine.families.flux1 import Flux1
from underpaint_backend.engine.painting import Observer, Painting, Source, paint_latents

from parities import Case, Measured, difference, most_likely_latents
from parities.flow_solvers import SOLVERS, Level, Velocity, put_on
from parities.oracle import painting_error
from parities.tiny_flux1 import tiny_flux1

WIDTH, HEIGHT = 80, 64
"""Not square, so that nothing that mixes its sides up goes unseen; a multiple of 16, not of 32."""
STEPS = 5
STRENGTH = 0.7
"""Of 5 steps, FLUX runs 4: it rounds the other way than Stable Diffusion, which would run 3."""
PROMPT = "a red circle on blue stripes"
GUIDANCE = {"schnell": 0.0, "dev": 3.5, "fill": 30.0, "redux": 3.5, "kontext": 2.5}
SEED = 11


@dataclass(frozen=True)
class Task:
    """What is painted. `selection` is one of `SELECTIONS`, or None where there is no canvas."""

    name: str
    selection: str | None = None
    strength: float = 1.0
    references: int = 0


TITLES = {"fill": "Fill", "redux": "Redux", "kontext": "Kontext"}

TEXT = Task("text to image")
REFINE = Task("image to image", "everything", STRENGTH)
INPAINT = Task("inpaint", "cells")
REPAINT = Task("inpaint, refined", "cells", STRENGTH)
SOFT = Task("inpaint, soft", "soft")

TASKS: dict[str, tuple[Task, ...]] = {
    "schnell": (TEXT, REFINE, INPAINT),
    "dev": (TEXT, REFINE, INPAINT, REPAINT, SOFT),
    "fill": (INPAINT, Task("outpaint", "border"), REPAINT, SOFT),
    "redux": (
        Task("one reference", references=1),
        Task("two references", references=2),
        Task("inpaint, one reference", "cells", references=1),
    ),
    "kontext": (
        Task("edit", references=1),
        Task("edit, two references", references=2),
        Task("edit in a selection", "cells", references=1),
        Task("edit in a soft selection", "soft", references=1),
    ),
}


def cases() -> list[Case]:
    """The rows: each variant with its tasks, with each scheduler."""
    return [
        Case(f"FLUX.1 {TITLES.get(variant, variant)}", task.name, scheduler, partial(measure, variant, task, scheduler))
        for variant, tasks in TASKS.items()
        for task in tasks
        for scheduler in SOLVERS
    ]


def measure(variant: str, task: Task, scheduler: str) -> Measured:
    """How far our latents are from the classic pipeline's, or from the loop's that is written out here."""
    theirs = classic if has_classic(task, scheduler) else written
    ours = painted(variant, task, scheduler)
    return Measured(
        difference=difference(ours, theirs(variant, task, scheduler)),
        preview_error=painting_error(tiny_flux1(variant), painting_of(variant, task, scheduler)),
    )


def has_classic(task: Task, scheduler: str) -> bool:
    """Whether a pipeline of diffusers does this."""
    if scheduler == "heun" or task.selection == "soft" or task.references > 1:
        return False
    return scheduler == "euler" or task.selection is None


# What is painted


def family_of(variant: str) -> Flux1:
    family = tiny_flux1(variant).family
    assert isinstance(family, Flux1)
    return family


def canvas() -> NDArray[np.uint8]:
    """The pixels [H, W, 3] of the canvas."""
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def coverage_of(selection: str) -> NDArray[np.float32]:
    """How far each pixel [H, W] is selected, 0..1."""
    across = np.linspace(-1, 2, WIDTH, dtype=np.float32)[None] * np.ones((HEIGHT, 1), np.float32)
    found = {
        "everything": np.ones((HEIGHT, WIDTH), np.float32),
        # The classic pipelines know whole latent cells, of 8 px; tokens are of 16.
        "cells": np.zeros((HEIGHT, WIDTH), np.float32),
        "border": np.ones((HEIGHT, WIDTH), np.float32),
        "soft": across.clip(0, 1),
    }
    found["cells"][16:40, 8:56] = 1
    found["border"][8:56, 16:72] = 0
    return found[selection]


def references_of(variant: str, task: Task) -> list[NDArray[np.uint8]]:
    """The reference pictures [H, W, 3], of different sizes; to edit in a selection, the canvas is the reference."""
    if variant == "kontext" and task.selection is not None:
        return [canvas()]
    drawn = np.random.default_rng(2)
    sizes = [(48, 96), (64, 32)]
    return [drawn.integers(0, 256, (*size, 3), np.uint8) for size in sizes[: task.references]]


def painting_of(variant: str, task: Task, scheduler: str) -> Painting:
    """What the product is asked for."""
    source = None if task.selection is None else Source(canvas(), coverage_of(task.selection))
    return Painting(
        size=(WIDTH, HEIGHT),
        prompt=PROMPT,
        negative_prompt="",
        guidance=GUIDANCE[variant],
        scheduler=scheduler,
        steps=STEPS,
        strength=task.strength,
        seeds=[SEED],
        source=source,
        references=references_of(variant, task),
    )


@torch.inference_mode()
def painted(variant: str, task: Task, scheduler: str) -> Tensor:
    """What the product makes of it [1, 16, h, w], by the same way as every job."""
    observer = Observer(lambda phase: None, lambda step: None)
    return paint_latents(tiny_flux1(variant), painting_of(variant, task, scheduler), observer)


# What diffusers makes of it


def classic(variant: str, task: Task, scheduler: str) -> Tensor:
    """What the classic pipeline makes of it [1, 16, h, w]."""
    pipeline = _pipeline(_pipeline_class(variant, task), variant)
    if scheduler != "euler":
        pipeline.scheduler = _on_levels(scheduler, shifted_levels(variant != "schnell"))
    options: dict[str, Any] = {
        "height": HEIGHT,
        "width": WIDTH,
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE[variant],
        "generator": torch.Generator().manual_seed(SEED),
        "output_type": "latent",
    }
    if variant == "redux":
        options |= _redux(references_of(variant, task)[0])
    else:
        options |= {"prompt": PROMPT, "max_sequence_length": 256 if variant == "schnell" else 512}
    if task.selection is not None:
        options |= {"image": _from_0_to_1(canvas()), "strength": task.strength}
        if task.selection != "everything":
            options["mask_image"] = torch.from_numpy(coverage_of(task.selection))[None, None]
    if variant == "kontext":
        options |= {"_auto_resize": False, "max_area": WIDTH * HEIGHT}
        if task.selection is None:
            options["image"] = _from_0_to_1(references_of(variant, task)[0])
    with most_likely_latents():
        packed = pipeline(**options).images
    latents: Tensor = FluxPipeline._unpack_latents(packed, HEIGHT, WIDTH, 8)
    return latents


def _pipeline_class(variant: str, task: Task) -> Any:
    if variant == "fill":
        return FluxFillPipeline
    if variant == "kontext":
        return FluxKontextPipeline if task.selection is None else FluxKontextInpaintPipeline
    if task.selection is None:
        return FluxPipeline
    return FluxImg2ImgPipeline if task.selection == "everything" else FluxInpaintPipeline


def _pipeline(cls: Any, variant: str) -> Any:
    family = family_of(variant)
    pipeline = cls(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(family.scheduler_config),
        vae=family.vae,
        text_encoder=family.parts["text_encoder"],
        text_encoder_2=family.parts["text_encoder_2"],
        tokenizer=family.clip_tokenizer,
        tokenizer_2=family.t5_tokenizer,
        transformer=family.transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _on_levels(name: str, levels: list[Level]) -> Any:
    """A scheduler that keeps to FLUX's levels, whatever the pipeline asks of it. By themselves, they choose others."""
    settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    scheduler = {"dpm++2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}[name](**settings)
    put_on(scheduler, levels)

    def set_timesteps(steps: int | None = None, device: Any = None, sigmas: Any = None, mu: Any = None) -> None:
        assert steps in (None, STEPS)

    scheduler.set_timesteps = set_timesteps
    return scheduler


def _redux(reference: NDArray[np.uint8]) -> dict[str, Tensor]:
    """The prompt's embeddings beside one reference: 512 tokens of text, and then those of the picture."""
    family = family_of("redux")
    prior = FluxPriorReduxPipeline(
        image_encoder=family.parts["image_encoder"],
        feature_extractor=family.feature_extractor,
        image_embedder=family.parts["image_embedder"],
        text_encoder=family.parts["text_encoder"],
        tokenizer=family.clip_tokenizer,
        text_encoder_2=family.parts["text_encoder_2"],
        tokenizer_2=family.t5_tokenizer,
    )
    return dict(prior(Image.fromarray(reference), prompt=PROMPT))


def _from_0_to_1(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).movedim(-1, 0)[None] / 255


# The loop, written out


@torch.inference_mode()
def written(variant: str, task: Task, scheduler: str) -> Tensor:
    """What the loop below makes of it [1, 16, h, w]."""
    dynamic = variant != "schnell"
    levels = shifted_levels(dynamic)[int(STEPS - STEPS * task.strength) :]
    noise = torch.randn((1, 16, HEIGHT // 8, WIDTH // 8), generator=torch.Generator().manual_seed(SEED))
    known = _latents(variant, canvas() / 127.5 - 1)
    covered = torch.from_numpy(coverage_of(task.selection or "everything"))
    cells = torch.stack([cell.max() for cell in _tiles(covered, 8)]).reshape(1, 1, HEIGHT // 8, WIDTH // 8)

    def keep(latents: Tensor, level: Level) -> Tensor:
        if variant == "fill":
            return latents
        return cells * latents + (1 - cells) * (level * noise + (1 - level) * known)

    begin = levels[0] * noise + (1 - levels[0]) * known if task.strength < 1 else noise
    return SOLVERS[scheduler](_velocity(variant, task), begin, levels, keep)


def shifted_levels(dynamic: bool) -> list[Level]:
    """The noise levels from 1 down, and 0. With `dynamic`, they are shifted by `mu` for the picture's 20 tokens."""
    mu = 0.5 + (1.15 - 0.5) * ((WIDTH // 16) * (HEIGHT // 16) - 256) / (4096 - 256)
    even = [1 - step * (1 - 1 / STEPS) / (STEPS - 1) for step in range(STEPS)]
    return [*(1 / (1 + (1 / level - 1) * math.exp(-mu)) if dynamic else level for level in even), 0.0]


def _velocity(variant: str, task: Task) -> Velocity:
    family = family_of(variant)
    text, gist = _embeddings(variant, task)
    grids, beside = [(HEIGHT // 16, WIDTH // 16)], []
    if variant == "kontext":
        for pixels in references_of(variant, task):
            grids.append((pixels.shape[0] // 16, pixels.shape[1] // 16))
            beside.append(_tokens(_latents(variant, pixels / 127.5 - 1)))
    ids = [[time, y, x] for time, (rows, columns) in enumerate(grids) for y in range(rows) for x in range(columns)]
    filled = _fill_tokens(task) if variant == "fill" else None

    def velocity(latents: Tensor, level: Level) -> Tensor:
        tokens = _tokens(latents)
        seen = tokens if filled is None else torch.cat([tokens, filled], dim=2)
        output = family.transformer(
            hidden_states=torch.cat([seen, *beside], dim=1),
            encoder_hidden_states=text,
            pooled_projections=gist,
            timestep=torch.tensor([level]),
            guidance=None if variant == "schnell" else torch.tensor([GUIDANCE[variant]]),
            img_ids=torch.tensor(ids).float(),
            txt_ids=torch.zeros(text.shape[1], 3),
        ).sample
        return _cells(output[:, : tokens.shape[1]])

    return velocity


def _embeddings(variant: str, task: Task) -> tuple[Tensor, Tensor]:
    if variant != "redux":
        pipeline = _pipeline(FluxPipeline, variant)
        text, gist, _ = pipeline.encode_prompt(PROMPT, None, max_sequence_length=256 if variant == "schnell" else 512)
        return text, gist
    each = [_redux(pixels) for pixels in references_of(variant, task)]
    text = torch.cat([each[0]["prompt_embeds"], *(one["prompt_embeds"][:, 512:] for one in each[1:])], dim=1)
    return text, each[0]["pooled_prompt_embeds"]


def _latents(variant: str, picture: NDArray[np.float64]) -> Tensor:
    """The latents of a picture [H, W, 3] in -1..1."""
    pictures = torch.from_numpy(picture).float().movedim(-1, 0)[None]
    latents: Tensor = (family_of(variant).vae.encode(pictures).latent_dist.mode() - 0.1159) * 0.3611
    return latents


def _fill_tokens(task: Task) -> Tensor:
    """What Fill is told [1, N, 320]: the canvas with the selection blanked, and the 16×16 px of each token selected.

    Of these, all that lie at the same place in their cells of 8 px come together.
    """
    assert task.selection is not None
    covered = torch.from_numpy(coverage_of(task.selection))
    blanked = _latents("fill", (canvas() / 127.5 - 1) * (covered.numpy() == 0)[..., None])
    tiles = _tiles(covered, 16)
    selected = torch.stack([torch.stack([tile[y::8, x::8] for y in range(8) for x in range(8)]) for tile in tiles])
    return torch.cat([_tokens(blanked), selected.flatten(1)[None]], dim=2)


def _tiles(grid: Tensor, side: int) -> list[Tensor]:
    """The squares [..., side, side] of a grid [..., H, W], row by row."""
    height, width = grid.shape[-2:]
    return [grid[..., y : y + side, x : x + side] for y in range(0, height, side) for x in range(0, width, side)]


def _tokens(latents: Tensor) -> Tensor:
    """A token for each 2×2 cells, row by row."""
    return torch.stack([cells.flatten() for cells in _tiles(latents[0], 2)])[None]


def _cells(tokens: Tensor) -> Tensor:
    """The latents of the picture's tokens."""
    columns = WIDTH // 16
    cells = [token.reshape(16, 2, 2) for token in tokens[0]]
    rows = [torch.cat(cells[start : start + columns], dim=2) for start in range(0, len(cells), columns)]
    return torch.cat(rows, dim=1)[None]
