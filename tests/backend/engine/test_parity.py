"""Our loop gives the same latents as the classic pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from underpaint_backend.engine.families.stable_diffusion import StableDiffusion
from underpaint_backend.engine.library import LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, Source, paint_latents
from underpaint_backend.models.catalog import SCHEDULERS

TOLERANCE = 1e-4
SIZE = 64
STEPS = 7
GUIDANCE = 3.0
PROMPT, NEGATIVE = "a red circle", "blue stripes"
SEED = 11

CLASSIC: dict[str, Callable[[Any], Any]] = {
    "ddim": DDIMScheduler.from_config,
    "ddpm": lambda config: DDPMScheduler.from_config(config, clip_sample=False),
    "pndm": lambda config: PNDMScheduler.from_config(config, skip_prk_steps=True),
    "euler": EulerDiscreteScheduler.from_config,
    "dpm++2m": DPMSolverMultistepScheduler.from_config,
    "unipc": UniPCMultistepScheduler.from_config,
}


def test_every_scheduler_is_compared() -> None:
    """No scheduler that the catalog offers is left out here."""
    assert set(CLASSIC) == set(SCHEDULERS)


@pytest.fixture(autouse=True)
def most_likely_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classic pipelines draw a picture's latents at random; let them take the most likely ones, as we do."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("channels", [9, 4])
def test_inpainting_is_the_classic_pipelines(
    load_tiny: Callable[[int], LoadedModel], channels: int, strength: float, scheduler: str
) -> None:
    """Inpainting, with a mask-filling UNet or by blending, gives the classic pipeline's latents."""
    model, source = load_tiny(channels), _source()
    ours = _ours(model, scheduler, strength, source)
    assert _difference(ours, _classic_inpainting(model, scheduler, strength, source)) <= TOLERANCE


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_text_to_image_is_the_classic_pipelines(load_tiny: Callable[[int], LoadedModel], scheduler: str) -> None:
    """Text to image gives the classic pipeline's latents."""
    model = load_tiny(4)
    assert _difference(_ours(model, scheduler), _classic_text_to_image(model, scheduler)) <= TOLERANCE


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_text_to_image_with_a_mask_filling_unet_is_inpainting_everything(
    load_tiny: Callable[[int], LoadedModel], scheduler: str
) -> None:
    """A picture from words alone is what the classic pipeline makes of a canvas that is selected as a whole."""
    model = load_tiny(9)
    everything = Source(np.zeros((SIZE, SIZE, 3), np.uint8), np.ones((SIZE, SIZE), np.float32))
    assert _difference(_ours(model, scheduler), _classic_inpainting(model, scheduler, 1.0, everything)) <= TOLERANCE


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """How far two tensors lie apart, as a share of the length of the second."""
    return float((ours - theirs).norm() / theirs.norm())


def _source() -> Source:
    """A canvas and a selection whose edges lie on those of latent cells, as the classic pipelines know no others."""
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    coverage = np.zeros((SIZE, SIZE), np.float32)
    coverage[16:48, 8:48] = 1
    return Source(pixels, coverage)


@torch.inference_mode()
def _ours(model: LoadedModel, scheduler: str, strength: float = 1.0, source: Source | None = None) -> Tensor:
    """What the product makes of it, by the same way as every job."""
    painting = Painting((SIZE, SIZE), PROMPT, NEGATIVE, GUIDANCE, scheduler, STEPS, strength, [SEED], source)
    return paint_latents(model, painting, Observer(lambda phase: None, lambda step: None))


def _classic_inpainting(model: LoadedModel, scheduler: str, strength: float, source: Source) -> Tensor:
    pipeline = _quiet(StableDiffusionInpaintPipeline(**_components(model, scheduler)))
    picture = torch.tensor(source.pixels).movedim(-1, 0)[None] / 255
    latents: Tensor = pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        image=picture,
        mask_image=torch.tensor(source.coverage)[None, None],
        height=SIZE,
        width=SIZE,
        strength=strength,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images
    return latents


def _classic_text_to_image(model: LoadedModel, scheduler: str) -> Tensor:
    pipeline = _quiet(StableDiffusionPipeline(**_components(model, scheduler)))
    latents: Tensor = pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images
    return latents


def _components(model: LoadedModel, scheduler: str) -> dict[str, Any]:
    family = model.family
    assert isinstance(family, StableDiffusion)
    return {
        "vae": family.vae,
        "text_encoder": family.text_encoder,
        "tokenizer": family.tokenizer,
        "unet": family.unet,
        "scheduler": CLASSIC[scheduler](family.scheduler_config),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
