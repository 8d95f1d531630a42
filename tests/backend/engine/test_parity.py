"""Our loop gives the same latents as the classic pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from torch import Tensor
from torch.nn import functional
from underpaint_backend.engine.denoise import Surroundings, denoise
from underpaint_backend.engine.families import Conditions, Region
from underpaint_backend.engine.families.stable_diffusion import StableDiffusion
from underpaint_backend.engine.library import LoadedModel
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


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("channels", [9, 4])
def test_inpainting_is_the_classic_pipelines(
    load_tiny: Callable[[int], LoadedModel], channels: int, strength: float, scheduler: str
) -> None:
    """Inpainting, with a mask-filling UNet or by blending, gives the classic pipeline's latents."""
    model = _stable_diffusion(load_tiny(channels))
    picture, mask = _picture(), _mask()

    assert (
        _difference(
            _our_inpainting(model, scheduler, strength, picture, mask),
            _classic_inpainting(model, scheduler, strength, picture, mask),
        )
        <= TOLERANCE
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_text_to_image_is_the_classic_pipelines(load_tiny: Callable[[int], LoadedModel], scheduler: str) -> None:
    """Text to image gives the classic pipeline's latents."""
    model = _stable_diffusion(load_tiny(4))

    assert _difference(_our_text_to_image(model, scheduler), _classic_text_to_image(model, scheduler)) <= TOLERANCE


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """How far two tensors lie apart, as a share of the length of the second."""
    return float((ours - theirs).norm() / theirs.norm())


def _stable_diffusion(model: LoadedModel) -> StableDiffusion:
    assert isinstance(model.family, StableDiffusion)
    return model.family


def _picture() -> Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _mask() -> Tensor:
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 17:48, 9:50] = 1
    return mask


@torch.inference_mode()
def _our_inpainting(model: StableDiffusion, scheduler: str, strength: float, picture: Tensor, mask: Tensor) -> Tensor:
    """Our loop, fed with random numbers in the order in which the classic pipeline draws them."""
    generator = torch.Generator().manual_seed(SEED)
    cells = functional.interpolate(mask, size=(SIZE // model.latent_scale, SIZE // model.latent_scale))

    source = None
    if strength < 1 or not model.takes_mask:
        source = _sampled(model, picture, generator)
    noise = model.noise([generator], (SIZE, SIZE))
    blanked = _sampled(model, picture * (mask < 0.5), generator)

    schedule = model.schedule(scheduler, STEPS, strength, (SIZE, SIZE))
    predict = model.predictor(_conditions(model, Region(blanked, cells) if model.takes_mask else None), batch=1)
    surroundings = None
    if not model.takes_mask:
        assert source is not None
        surroundings = Surroundings(source, noise, cells)
    begin = schedule.begin(noise, source if strength < 1 else None)
    return denoise(predict, schedule, begin, [generator], lambda step: None, surroundings)


def _classic_inpainting(
    model: StableDiffusion, scheduler: str, strength: float, picture: Tensor, mask: Tensor
) -> Tensor:
    pipeline = _quiet(StableDiffusionInpaintPipeline(**_components(model, scheduler)))
    latents: Tensor = pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        image=(picture + 1) / 2,
        mask_image=mask,
        height=SIZE,
        width=SIZE,
        strength=strength,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images
    return latents


@torch.inference_mode()
def _our_text_to_image(model: StableDiffusion, scheduler: str) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    schedule = model.schedule(scheduler, STEPS, 1.0, (SIZE, SIZE))
    predict = model.predictor(_conditions(model, None), batch=1)
    begin = schedule.begin(model.noise([generator], (SIZE, SIZE)))
    return denoise(predict, schedule, begin, [generator], lambda step: None)


def _classic_text_to_image(model: StableDiffusion, scheduler: str) -> Tensor:
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


def _conditions(model: StableDiffusion, region: Region | None) -> Conditions:
    return Conditions(model.encode_prompt(PROMPT), model.encode_prompt(NEGATIVE), GUIDANCE, region)


def _sampled(model: StableDiffusion, picture: Tensor, generator: torch.Generator) -> Tensor:
    """Latents drawn as the classic pipelines draw them, where the product takes the most likely ones."""
    latents: Tensor = model.vae.encode(picture).latent_dist.sample(generator) * model.vae.config.scaling_factor
    return latents


def _components(model: StableDiffusion, scheduler: str) -> dict[str, Any]:
    return {
        "vae": model.vae,
        "text_encoder": model.text_encoder,
        "tokenizer": model.tokenizer,
        "unet": model.unet,
        "scheduler": CLASSIC[scheduler](model.scheduler_config),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
