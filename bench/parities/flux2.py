"""FLUX.2 klein, klein base and dev beside diffusers' pipelines for them, and beside loops that are written out here.

diffusers has no pipeline for Heun's method, none that refines or that fills soft masks, none that inpaints with dev or
without showing the canvas as a reference, and no inpainting with a multistep scheduler. There the loop is written out,
on diffusers' networks and with nothing of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, Flux2KleinInpaintPipeline, UniPCMultistepScheduler
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, Source, paint_latents

from parities import Case, Measured
from parities.flow_solvers import SOLVERS, Level, Velocity, put_on
from parities.oracle import painting_error
from parities.tiny_flux2 import VARIANTS, build_tiny_flux2

SIZE = 96, 64
CELLS = 4, 6
"""Rows and columns of the latents: each is of 16×16 px."""
STEPS = 4
"""As many as klein was distilled to."""
GUIDANCE = 3.5
"""klein is to ignore it."""
PROMPT, NEGATIVE = "a red circle", "blue stripes"
SEED = 11
MULTISTEP = {"dpm++2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}


@dataclass(frozen=True)
class Task:
    """What is asked for. `references` are pictures [H, W, 3], 0..255; the first may be the canvas."""

    name: str
    strength: float = 1.0
    source: Source | None = None
    references: tuple[NDArray[np.uint8], ...] = ()
    has_pipeline: bool = False
    """Whether diffusers has a pipeline for it, with klein and Euler's method at least."""


def picture(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """A picture [height, width, 3] of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _coverage(edge: float) -> NDArray[np.float32]:
    """A selection [H, W] whose edges lie on those of latent cells, as diffusers' pipelines know no others."""
    coverage = np.zeros((SIZE[1], SIZE[0]), np.float32)
    coverage[16:48, 16:80] = edge
    coverage[16:48, 32:64] = 1
    return coverage


CANVAS = picture(*SIZE, seed=1)
TASKS = (
    Task("text to image", has_pipeline=True),
    # Sides that are no multiples of 16 px, and grids of different shapes.
    Task("references", references=(picture(90, 70, 2), picture(64, 101, 3)), has_pipeline=True),
    Task("image to image", 0.6, Source(CANVAS, np.ones((SIZE[1], SIZE[0]), np.float32))),
    Task("inpaint, soft", 1.0, Source(CANVAS, _coverage(0.3))),
    Task("inpaint with references", 0.7, Source(CANVAS, _coverage(1.0)), (CANVAS, picture(90, 70, 2)), True),
)


def cases() -> list[Case]:
    """Every variant, task and scheduler."""
    return [
        Case(f"FLUX.2 {variant}", task.name, scheduler, partial(measure, variant, task, scheduler))
        for variant in VARIANTS
        for task in TASKS
        for scheduler in SOLVERS
    ]


def measure(variant: str, task: Task, scheduler: str) -> Measured:
    """One row."""
    pair = paired(variant)
    truth = pair.paint_classically(task, scheduler) if pair.has_pipeline(task, scheduler) else None
    if truth is None:
        truth = pair.paint_by_hand(task, scheduler)
    difference = (pair.paint(task, scheduler) - truth).norm() / truth.norm()
    return Measured(float(difference), painting_error(pair.model, pair.painting(task, scheduler)))


@cache
def paired(variant: str) -> Pair:
    """The tiny model of a variant, loaded by us and held by diffusers."""
    with TemporaryDirectory() as folder:
        entry, pipeline = build_tiny_flux2(Path(folder) / "tiny", variant)
        model = Library(open_device("cpu")).load(entry, lambda fraction: None, Event())
    return Pair(variant, model, pipeline)


@dataclass(frozen=True)
class Pair:
    """One tiny model, loaded by us, and diffusers' pipeline for text to image with the same weights."""

    variant: str
    model: LoadedModel
    pipeline: Any

    @property
    def guided(self) -> bool:
        """Whether there is a negative prompt."""
        return self.variant == "klein base"

    def painting(self, task: Task, scheduler: str) -> Painting:
        """What our side is asked for."""
        return Painting(
            size=SIZE,
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            guidance=GUIDANCE,
            scheduler=scheduler,
            steps=STEPS,
            strength=task.strength,
            seeds=[SEED],
            source=task.source,
            references=task.references,
        )

    def paint(self, task: Task, scheduler: str) -> Tensor:
        """Our latents, by the same way as every job's."""
        observer = Observer(lambda phase: None, lambda step: None)
        with torch.inference_mode():
            return paint_latents(self.model, self.painting(task, scheduler), observer)

    def has_pipeline(self, task: Task, scheduler: str) -> bool:
        """Whether diffusers has a pipeline that does this."""
        if task.source is None:
            return task.has_pipeline and scheduler != "heun"
        return task.has_pipeline and scheduler == "euler" and self.variant != "dev"

    def paint_classically(self, task: Task, scheduler: str) -> Tensor:
        """The latents of diffusers' own pipeline."""
        parts = {**self.pipeline.components, "scheduler": self._scheduler(scheduler)}
        references = [Image.fromarray(pixels) for pixels in task.references]
        options: dict[str, Any] = {"image": references or None, "height": SIZE[1], "width": SIZE[0]}
        made = type(self.pipeline)
        if task.source is not None:
            # It shows the canvas as the first reference by itself.
            made = Flux2KleinInpaintPipeline
            mask = Image.fromarray((task.source.coverage * 255).astype(np.uint8))
            options = {"image": references[0], "mask_image": mask, "image_reference": references[1:]}
            options["strength"] = task.strength
        if self.guided:
            options["negative_prompt_embeds"] = self.pipeline.encode_prompt(NEGATIVE)[0]
        if self.variant != "dev":
            parts["is_distilled"] = not self.guided
        pipeline = made(**parts)
        pipeline.set_progress_bar_config(disable=True)
        latents = pipeline(
            prompt=PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(SEED),
            output_type="latent",
            **options,
        ).images
        if self.variant == "dev":  # tokens
            return latents.transpose(1, 2).unflatten(2, CELLS)  # type: ignore[no-any-return]
        return self._normalised(pipeline._patchify_latents(latents))

    @torch.inference_mode()
    def paint_by_hand(self, task: Task, scheduler: str) -> Tensor:
        """The latents of a loop that is written out, after the papers of its method."""
        levels = shifted_levels()[int(STEPS - STEPS * task.strength) :]
        noise = torch.randn((1, 128, *CELLS), generator=torch.Generator().manual_seed(SEED))
        if task.source is None:
            return SOLVERS[scheduler](self._velocity(task), noise, levels, lambda latents, level: latents)

        known = self._encoded(task.source.pixels)
        # As far as the most covered pixel of a cell.
        mask = torch.tensor(task.source.coverage.reshape(CELLS[0], 16, CELLS[1], 16).max((1, 3)))

        def noisy(level: Level) -> Tensor:
            return (1 - level) * known + level * noise

        def keep(latents: Tensor, level: Level) -> Tensor:
            return (1 - mask) * noisy(level) + mask * latents

        return SOLVERS[scheduler](self._velocity(task), noisy(levels[0]), levels, keep)

    def _velocity(self, task: Task) -> Velocity:
        """The transformer as a function of latents [1, 128, h, w] and their level, after guidance."""
        pipeline = self.pipeline
        references = [self._encoded(_cropped(pixels)) for pixels in task.references]
        grid = pipeline._prepare_latent_ids(torch.zeros(1, 128, *CELLS))
        beside = [pipeline._pack_latents(latents) for latents in references]
        places = torch.cat([grid, pipeline._prepare_image_ids(references)], dim=1) if references else grid

        wanted_text, words = pipeline.encode_prompt(PROMPT)
        unwanted_text = pipeline.encode_prompt(NEGATIVE)[0] if self.guided else None

        def told(text: Tensor, latents: Tensor, level: Level) -> Tensor:
            output = pipeline.transformer(
                hidden_states=torch.cat([pipeline._pack_latents(latents), *beside], dim=1),
                encoder_hidden_states=text,
                timestep=torch.tensor([level]),
                guidance=torch.tensor([GUIDANCE]) if self.variant == "dev" else None,
                img_ids=places,
                txt_ids=words,
            ).sample
            return output[:, : grid.shape[1]].transpose(1, 2).unflatten(2, CELLS)  # type: ignore[no-any-return]

        def guided(latents: Tensor, level: Level) -> Tensor:
            wanted = told(wanted_text, latents, level)
            if unwanted_text is None:
                return wanted
            without = told(unwanted_text, latents, level)
            return without + GUIDANCE * (wanted - without)

        return guided

    def _scheduler(self, name: str) -> Any:
        """A scheduler for a pipeline. By themselves, the multistep ones would choose other levels than FLUX's."""
        if name == "euler":
            return self.pipeline.scheduler
        scheduler = MULTISTEP[name](prediction_type="flow_prediction", use_flow_sigmas=True)
        put_on(scheduler, shifted_levels())

        def set_timesteps(steps: int, device: Any = None, mu: float | None = None) -> None:
            assert steps == STEPS

        scheduler.set_timesteps = set_timesteps
        return scheduler

    def _encoded(self, pixels: NDArray[np.uint8]) -> Tensor:
        pictures = torch.tensor(pixels).movedim(-1, 0)[None] / 127.5 - 1
        cells = self.pipeline.vae.encode(pictures).latent_dist.mode()
        return self._normalised(self.pipeline._patchify_latents(cells))

    def _normalised(self, patches: Tensor) -> Tensor:
        norm = self.pipeline.vae.bn
        normalised: Tensor = torch.nn.functional.batch_norm(patches, norm.running_mean, norm.running_var, eps=norm.eps)
        return normalised


def _cropped(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of a picture, with sides of 16 px."""
    height, width = (side // 16 * 16 for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def shifted_levels() -> list[Level]:
    """The noise levels from 1 to 0, evenly spaced and then shifted: Esser et al. 2024, arXiv:2403.03206, 5.3.2."""
    even = np.linspace(1, 1 / STEPS, STEPS)
    shift = np.exp(compute_empirical_mu(CELLS[0] * CELLS[1], STEPS))
    return [*(shift * even / (1 + (shift - 1) * even)).tolist(), 0.0]
