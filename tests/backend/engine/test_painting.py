"""From a painting to pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline
from numpy.typing import NDArray
from underpaint_backend.engine.cache import TensorCache
from underpaint_backend.engine.denoise import Step
from underpaint_backend.engine.exceptions import NotFinite, UnknownScheduler
from underpaint_backend.engine.families.stable_diffusion import StableDiffusion
from underpaint_backend.engine.library import LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, Source, paint
from underpaint_backend.engine.schedulers import NAMES

from tests.backend.engine.counting import Counted

SIZE = 64


def source(seed: int = 0) -> Source:
    """A smooth picture with a selection in the middle that ends at borders of latent cells."""
    across = np.linspace(0, 255, SIZE, dtype=np.uint8)
    pixels = np.stack(
        [np.tile(across, (SIZE, 1)), np.tile(across[:, None], SIZE), np.full((SIZE, SIZE), 40 + seed)], -1
    )
    coverage = np.zeros((SIZE, SIZE), np.float32)
    coverage[16:48, 12:40] = 1
    return Source(pixels.astype(np.uint8), coverage)


PAINTING = Painting(
    size=(SIZE, SIZE),
    prompt="a red circle",
    negative_prompt="blue",
    guidance=3.0,
    scheduler="ddim",
    steps=5,
    strength=1.0,
    seeds=(3,),
    source=source(),
)


def painted(model: LoadedModel, painting: Painting, steps: list[Step] | None = None) -> NDArray[np.uint8]:
    """The pictures of a painting; its steps are added to `steps`."""
    on_step = (lambda step: None) if steps is None else steps.append
    return paint(model, painting, Observer(lambda phase: None, on_step), Event())


@pytest.mark.parametrize("scheduler", NAMES)
def test_a_batch_paints_what_its_seeds_paint_alone(tiny_inpaint: LoadedModel, scheduler: str) -> None:
    """Each picture of a batch is the picture of its seed, to one level: sums are rounded differently in batches."""
    together = painted(tiny_inpaint, replace(PAINTING, scheduler=scheduler, seeds=(5, 6, 7)))
    alone = [painted(tiny_inpaint, replace(PAINTING, scheduler=scheduler, seeds=(seed,)))[0] for seed in (5, 6, 7)]

    assert np.abs(together.astype(int) - np.stack(alone).astype(int)).max() <= 1


def test_the_same_seed_gives_the_same_picture(tiny_inpaint: LoadedModel) -> None:
    """A painting is determined by its values."""
    np.testing.assert_array_equal(painted(tiny_inpaint, PAINTING), painted(tiny_inpaint, PAINTING))


@pytest.mark.parametrize(
    "other",
    [
        replace(PAINTING, seeds=(4,)),
        replace(PAINTING, prompt="a green square"),
        replace(PAINTING, negative_prompt="yellow"),
        replace(PAINTING, guidance=6.0),
        replace(PAINTING, scheduler="euler"),
        replace(PAINTING, strength=0.5),
        replace(PAINTING, steps=6),
        replace(PAINTING, source=None),
        replace(PAINTING, source=source(seed=90)),
    ],
)
def test_everything_counts(tiny_inpaint: LoadedModel, other: Painting) -> None:
    """Whatever value of a painting is changed, the picture changes."""
    assert (painted(tiny_inpaint, PAINTING) != painted(tiny_inpaint, other)).any()


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_without_guidance_the_negative_prompt_is_not_asked(tiny_inpaint: LoadedModel, guidance: float) -> None:
    """At a guidance of 1 or less there is no second pass, so the negative prompt changes nothing."""
    first = replace(PAINTING, guidance=guidance, negative_prompt="blue")
    second = replace(PAINTING, guidance=guidance, negative_prompt="yellow")

    np.testing.assert_array_equal(painted(tiny_inpaint, first), painted(tiny_inpaint, second))


@pytest.mark.parametrize("channels", [4, 9])
def test_a_low_strength_stays_near_the_source(load_tiny: Callable[[int], LoadedModel], channels: int) -> None:
    """The lower the strength, the nearer the latents stay to those of the source."""
    model = load_tiny(channels)
    assert PAINTING.source is not None

    def moved(strength: float) -> float:
        steps: list[Step] = []
        painted(model, replace(PAINTING, strength=strength, steps=20, guidance=1.0), steps)
        pixels = torch.tensor(PAINTING.source.pixels).movedim(-1, 0)[None] / 127.5 - 1  # type: ignore[union-attr]
        return float((steps[-1].x0 - model.family.encode(pixels)).abs().mean())

    assert moved(0.05) < moved(0.5) < moved(1.0)


def test_blending_keeps_the_surroundings_latents(tiny_plain: LoadedModel) -> None:
    """A model that knows no masks is shown, and ends with, the picture's own latents outside the selection."""
    assert PAINTING.source is not None
    steps: list[Step] = []
    painted(tiny_plain, PAINTING, steps)
    with torch.inference_mode():
        pixels = torch.tensor(PAINTING.source.pixels).movedim(-1, 0)[None] / 127.5 - 1
        known = tiny_plain.family.encode(pixels)

    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[4:12, 3:10] = False
    for step in steps:
        torch.testing.assert_close(step.x0[..., outside], known[..., outside])
        assert not torch.allclose(step.x0[..., ~outside], known[..., ~outside])


def test_the_picture_is_the_classic_pipelines(tiny_inpaint: LoadedModel) -> None:
    """From pixels to pixels, with the same noise, the picture is the classic pipeline's to one level."""
    family = tiny_inpaint.family
    assert isinstance(family, StableDiffusion)
    assert PAINTING.source is not None
    pipeline = StableDiffusionInpaintPipeline(
        vae=family.vae,
        text_encoder=family.text_encoder,
        tokenizer=family.tokenizer,
        unet=family.unet,
        scheduler=DDIMScheduler.from_config(family.scheduler_config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pixels = torch.tensor(PAINTING.source.pixels).movedim(-1, 0)[None] / 255
    mask = torch.tensor(PAINTING.source.coverage)[None, None]
    with torch.inference_mode():
        blanked = family.encode((pixels * 2 - 1) * (mask < 0.5))
    theirs = pipeline(
        prompt=PAINTING.prompt,
        negative_prompt=PAINTING.negative_prompt,
        image=pixels,
        mask_image=mask,
        masked_image_latents=blanked,
        latents=family.noise([torch.Generator().manual_seed(3)], (SIZE, SIZE)),
        height=SIZE,
        width=SIZE,
        num_inference_steps=PAINTING.steps,
        guidance_scale=PAINTING.guidance,
        output_type="np",
    ).images

    assert np.abs(painted(tiny_inpaint, PAINTING) - theirs * 255.0).max() <= 1


def test_output_that_is_no_number_is_an_error(tiny_plain: LoadedModel) -> None:
    """A model that overflows fails with a sentence instead of painting black."""
    family = tiny_plain.family
    assert isinstance(family, StableDiffusion)
    bias = family.unet.conv_out.bias
    kept = bias.clone()
    bias.fill_(float("nan"))
    try:
        with pytest.raises(NotFinite) as caught:
            painted(tiny_plain, PAINTING)
    finally:
        bias.copy_(kept)

    assert caught.value.info.code == "not_finite"


def test_an_unknown_scheduler_is_refused(tiny_plain: LoadedModel) -> None:
    """A scheduler that nobody knows is refused before anything is encoded."""
    with pytest.raises(UnknownScheduler):
        painted(tiny_plain, replace(PAINTING, scheduler="guesswork"))


def test_prompts_and_pictures_are_encoded_once(tiny_inpaint: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another seed at the same place finds everything encoded."""
    model = replace(tiny_inpaint, prompts=TensorCache(1 << 20), pictures=TensorCache(1 << 20))
    prompts, pictures = (Counted(getattr(model.family, name)) for name in ("encode_prompt", "encode"))
    monkeypatch.setattr(model.family, "encode_prompt", prompts)
    monkeypatch.setattr(model.family, "encode", pictures)
    first = replace(PAINTING, strength=0.5)
    painted(model, first)
    painted(model, replace(first, seeds=(8,)))

    assert [text for (text,) in prompts.calls] == [first.prompt, first.negative_prompt]
    assert len(pictures.calls) == 2  # the canvas, and the canvas with the selection blanked
