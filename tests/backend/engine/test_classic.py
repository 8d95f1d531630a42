"""Pipelines of diffusers that nothing else here knows: they run as a whole, with previews, and can be cancelled."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from parities.tiny_unet import unet
from PIL import Image
from underpaint_backend.engine.cancel import Cancelled
from underpaint_backend.engine.denoise import Step
from underpaint_backend.engine.families.classic import Classic
from underpaint_backend.engine.library import LoadedModel
from underpaint_backend.engine.painting import Observer, Source, paint
from underpaint_backend.models.schedulers import OWN

from tests.backend.engine.cancelling import SetAfter
from tests.backend.engine.classic_pipelines import (
    FILTERS,
    KINDS,
    PAINTING,
    SIZE,
    canvas,
    instruct_pix2pix,
    opened,
    painted,
    stable_diffusion_3,
    write,
)

pytestmark = FILTERS


def by_hand(model: LoadedModel, cls: Any = None, **options: Any) -> Any:
    """What the pipeline itself makes of `PAINTING`."""
    folder = model.family.parts.source.folder  # type: ignore[attr-defined]
    pipeline = (cls or diffusers.DiffusionPipeline).from_pretrained(folder, local_files_only=True, **ABSENT)
    pipeline.set_progress_bar_config(disable=True)
    told = {
        "prompt": PAINTING.prompt,
        "negative_prompt": PAINTING.negative_prompt,
        "guidance_scale": PAINTING.guidance,
        "num_inference_steps": PAINTING.steps,
        "num_images_per_prompt": 2,
        "generator": [torch.Generator().manual_seed(seed) for seed in (1, 2)],
        "width": SIZE,
        "height": SIZE,
        "output_type": "pt",
        **options,
    }
    return pipeline(**{name: value for name, value in told.items() if value is not None}).images


ABSENT = {"text_encoder_3": None, "tokenizer_3": None}
"""What Stable Diffusion 3 is saved without; others have none."""

OPTIONS: dict[str, dict[str, Any]] = {
    "pixart": {"use_resolution_binning": False, "clean_caption": False},
    "instruct_pix2pix": {"image": Image.new("RGB", (SIZE, SIZE), (128, 128, 128)), "width": None, "height": None},
    "latent_consistency": {"negative_prompt": None},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_paints_as_it_does_by_itself(load_classic: Callable[[str], LoadedModel], kind: str) -> None:
    """Pictures are the pipeline's own to one level, phases come in order, and each step has its preview."""
    model = load_classic(kind)
    steps: list[Step] = []
    phases: list[str] = []

    pictures = paint(model, PAINTING, Observer(phases.append, steps.append), Event())

    expected = by_hand(model, **OPTIONS.get(kind, {})).movedim(1, -1).numpy() * 255
    assert np.abs(pictures - expected).max() <= 1
    assert phases == ["encoding", "denoising", "decoding"]
    assert [(step.number, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert {step.x0.shape[:2] for step in steps} == {(2, 3)}
    assert all(step.x0.std() > 0 for step in steps)


@pytest.mark.parametrize("kind", ["chroma", "stable_diffusion_3"])
def test_the_last_preview_of_a_flow_is_what_it_ends_with(load_classic: Callable[[str], LoadedModel], kind: str) -> None:
    """However a pipeline keeps its latents, its last preview has the colours of where Euler's last step leads."""
    model = load_classic(kind)
    steps: list[Step] = []
    paint(model, PAINTING, Observer(lambda phase: None, steps.append), Event())

    latents = by_hand(model, output_type="latent")
    family = model.family
    assert isinstance(family, Classic)
    torch.testing.assert_close(steps[-1].x0, family._small(latents, (8, 8)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_cancelled_anywhere_leaves_no_trace(load_classic: Callable[[str], LoadedModel], kind: str) -> None:
    """Cancelled at random points, a pipeline paints the same picture afterwards, bit by bit."""
    model = load_classic(kind)
    expected = painted(model)  # from now on its networks are in memory, and a job asks as often as the next
    never = SetAfter(float("inf"))
    painted(model, cancelled=never)

    for point in random.Random(kind).sample(range(never.asked), 3):
        with pytest.raises(Cancelled):
            painted(model, cancelled=SetAfter(point))
        np.testing.assert_array_equal(painted(model), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_multiple_is_read_from_configurations(load_classic: Callable[[str], LoadedModel], kind: str) -> None:
    """No network is loaded for it, and an odd number of them along a side is painted at just that size."""
    family = load_classic(kind).family
    assert isinstance(family, Classic)
    family.parts.residency.clear()
    multiple = family.size_multiple
    assert not family.networks
    assert multiple == {"chroma": 16, "stable_diffusion_3": 16}.get(kind, 8)  # the others' VAE is of 4 px

    width, height = 3 * multiple, 5 * multiple
    inner = family._pipeline(family.cls, OWN)
    told = family._told(family.cls, replace(PAINTING, size=(width, height), seeds=[1], steps=1))
    assert inner(**told).images.shape[-2:] == (height, width)


@pytest.mark.parametrize(("kind", "most"), [("pixart", 300), ("chroma", 512), ("latent_consistency", 24)])
def test_what_is_cut_off_a_prompt_is_told(load_classic: Callable[[str], LoadedModel], kind: str, most: int) -> None:
    """The pipeline's own limit of tokens counts, with those for where the text begins and ends."""
    family = load_classic(kind).family
    taken = most - (2 if kind == "latent_consistency" else 1)
    letters = "abcdefghijklmnopqrstuvwxyz" * 40
    assert family.left_out(letters[: taken - 1]) == ""
    rest = family.left_out(letters)
    tokenizer = family.parts.tokenizer("tokenizer", None)
    kept = letters[: len(letters) - len(rest)]
    assert rest
    assert letters.endswith(rest)
    assert len(tokenizer(kept, add_special_tokens=False).input_ids) == taken


def test_a_seed_paints_the_same_in_every_batch(load_classic: Callable[[str], LoadedModel]) -> None:
    """Each picture of a batch is the picture of its seed, to one level."""
    model = load_classic("stable_diffusion_3")
    alone = [painted(model, replace(PAINTING, seeds=[seed]))[0] for seed in PAINTING.seeds]

    assert np.abs(painted(model).astype(int) - np.stack(alone)).max() <= 1


def test_a_canvas_is_painted_by_the_pipeline_for_it(load_classic: Callable[[str], LoadedModel]) -> None:
    """A model that was saved for words alone fills selections by the class that diffusers has for that."""
    model = load_classic("stable_diffusion_3")
    source = canvas()

    pictures = painted(model, replace(PAINTING, source=source, strength=0.7))

    shown = {
        "image": Image.fromarray(source.pixels),
        "mask_image": Image.fromarray((source.coverage * 255).astype("u1")),
    }
    expected = (
        by_hand(model, diffusers.StableDiffusion3InpaintPipeline, strength=0.7, **shown).movedim(1, -1).numpy() * 255
    )
    assert np.abs(pictures - expected).max() <= 1


@pytest.mark.parametrize("as_reference", [False, True])
def test_an_editing_pipeline_is_shown_the_picture(
    load_classic: Callable[[str], LoadedModel], as_reference: bool
) -> None:
    """What is to be changed is the canvas, or a reference where there is one."""
    model, source = load_classic("instruct_pix2pix"), canvas()
    shown = {"references": [source.pixels]} if as_reference else {"source": source}

    pictures = painted(model, replace(PAINTING, **shown))

    expected = by_hand(model, image=Image.fromarray(source.pixels), width=None, height=None)
    assert np.abs(pictures - expected.movedim(1, -1).numpy() * 255).max() <= 1


def refining() -> Any:
    """Stable Diffusion's pipeline that changes pictures, and which rounds the number of steps down."""
    parts = {**instruct_pix2pix().components, "unet": unet(4)}
    return diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)


@pytest.mark.parametrize("made", [stable_diffusion_3, refining])
def test_at_least_one_step_is_made(tmp_path: Path, made: Callable[[], Any]) -> None:
    """A strength that is too low for the number of steps makes one step instead of an error."""
    model = opened(write(tmp_path / "tiny", made()))
    steps: list[Step] = []
    painting = replace(PAINTING, source=canvas(), strength=0.05)
    paint(model, painting, Observer(lambda phase: None, steps.append), Event())

    assert [(step.number, step.total) for step in steps] == [(1, 1)]


def test_a_size_that_a_pipeline_changes_is_changed_back(load_classic: Callable[[str], LoadedModel]) -> None:
    """Pictures have the size that was asked for, also from pipelines that take that of the canvas."""
    source = canvas()
    wide = Source(np.tile(source.pixels, (1, 2, 1)), np.tile(source.coverage, (1, 2)))
    pictures = painted(load_classic("instruct_pix2pix"), replace(PAINTING, size=(96, SIZE), source=wide))

    assert pictures.shape == (2, SIZE, 96, 3)
