"""FLUX.1 paints what the classic pipelines paint, and steps over what trips them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline, FluxPipeline
from parities import MOST_DIFFERENCE, MOST_PREVIEW_ERROR, Case, flux1
from parities.flow_solvers import SOLVERS
from parities.flux1 import HEIGHT, TASKS, TEXT, WIDTH, difference, family_of, painted
from parities.tiny_flux1 import VARIANTS, build_tiny_flux1, tiny_flux1
from torch import Tensor
from underpaint_backend.engine.device import Device, open_device
from underpaint_backend.engine.exceptions import BadFiles
from underpaint_backend.engine.families.flux1 import Flux1
from underpaint_backend.engine.flow import fitted_size, pack, positions, resized, unpack
from underpaint_backend.engine.library import Library
from underpaint_backend.engine.painting import Observer, Painting, Source, paint_latents
from underpaint_backend.engine.schedulers import FLOW_NAMES
from underpaint_backend.engine.sources import FolderSource

NOTICED = 100 * MOST_DIFFERENCE
"""What a condition has to change, so that parity would not hold without it."""
QUIET = Observer(lambda phase: None, lambda step: None)
PAINTING = Painting((WIDTH, HEIGHT), flux1.PROMPT, "", 3.5, "euler", 3, 1.0, [flux1.SEED])


@pytest.mark.parametrize("case", flux1.cases(), ids=lambda case: case.name)
def test_it_paints_what_the_classic_pipeline_paints(case: Case) -> None:
    """Final latents are the classic pipeline's, and under a perfect model every preview is the truth."""
    measured = case.measure()

    assert measured.difference <= MOST_DIFFERENCE
    assert measured.preview_error <= MOST_PREVIEW_ERROR


def test_every_scheduler_is_compared() -> None:
    """No scheduler that is offered for flow models is left out."""
    assert set(SOLVERS) == set(FLOW_NAMES)


@pytest.mark.parametrize("scheduler", ["euler", "dpm++2m", "unipc"])
def test_the_written_loop_is_the_classic_pipelines(scheduler: str) -> None:
    """Where a classic pipeline exists, the loop that stands in for it elsewhere does the same."""
    for variant, task in (("schnell", TEXT), ("dev", TEXT), ("kontext", TASKS["kontext"][0])):
        theirs = flux1.classic(variant, task, scheduler)
        assert difference(flux1.written(variant, task, scheduler), theirs) <= MOST_DIFFERENCE


# What parity rests on: each condition shows


@pytest.mark.parametrize("change", [{"prompt": "nothing"}, {"guidance": 5.0}, {"seeds": [12]}, {"steps": 4}])
def test_what_is_asked_for_shows(change: dict[str, Any]) -> None:
    """Another prompt, guidance, seed or number of steps gives another picture, by far more than parity allows."""
    assert difference(_latents("dev", replace(PAINTING, **change)), _latents("dev", PAINTING)) >= NOTICED


@pytest.mark.parametrize("variant", ["redux", "kontext"])
def test_each_reference_shows(variant: str) -> None:
    """With no, one or two references, the pictures differ by far more than parity allows."""
    one, two = (replace(TEXT, references=count) for count in (1, 2))
    pictures = [painted(variant, task, "euler") for task in (TEXT, one, two)]

    assert difference(pictures[1], pictures[0]) >= NOTICED
    assert difference(pictures[2], pictures[1]) >= NOTICED


def test_how_far_it_is_selected_shows() -> None:
    """Fill paints differently into a selection that is the same but soft."""
    pixels, soft = flux1.canvas(), flux1.coverage_of("soft")
    hard = (soft > 0).astype(np.float32)
    pictures = [_latents("fill", replace(PAINTING, source=Source(pixels, found))) for found in (soft, hard)]

    assert difference(pictures[0], pictures[1]) >= NOTICED


# Guidance


def test_schnell_ignores_guidance() -> None:
    """schnell paints the same whatever guidance it is given."""
    pictures = [_latents("schnell", replace(PAINTING, guidance=guidance)) for guidance in (0.0, 7.0)]
    assert torch.equal(*pictures)


@pytest.mark.parametrize("variant", VARIANTS)
def test_there_is_no_negative_prompt(variant: str) -> None:
    """Guidance is distilled into the model, so that no scale of it asks for a second evaluation."""
    assert not family_of(variant).is_guided(30.0)


# Tokens


def test_cells_are_packed_as_diffusers_does() -> None:
    """Packing is the classic pipelines', position for position, and unpacking undoes it."""
    latents = torch.randn(2, 16, 6, 10)

    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 16, 6, 10))
    assert torch.equal(unpack(pack(latents), 6, 10), latents)
    assert torch.equal(positions(3, 5), FluxPipeline._prepare_latent_image_ids(1, 3, 5, "cpu", torch.float32))


def test_odd_latents_are_refused() -> None:
    """Sides of 8 px too many cannot be packed in twos; a model says what its sides are multiples of."""
    with pytest.raises(ValueError, match="9×8 cells"):
        pack(torch.zeros(1, 16, 8, 9))
    assert family_of("dev").size_multiple == 16


def test_fill_is_told_of_each_pixel() -> None:
    """Fill's tokens are 64 channels of noise, 64 of the blanked canvas and 256 of the selection, as the classic's."""
    family, coverage = family_of("fill"), flux1.coverage_of("soft")
    source = Source(flux1.canvas(), coverage)
    with _heard(family.transformer) as calls:
        _latents("fill", replace(PAINTING, source=source))

    told = calls[0]["hidden_states"]
    blanked = torch.from_numpy(source.pixels * (coverage == 0)[..., None] + 127.5 * (coverage > 0)[..., None])
    with torch.inference_mode():
        known = family.encode(blanked.movedim(-1, 0)[None].float() / 127.5 - 1)
    # Given latents that are encoded already, the pipeline only scales and packs them, and unfolds the mask.
    unscaled = known / family.vae.config.scaling_factor + family.vae.config.shift_factor
    covered = torch.from_numpy(coverage)[None, None]
    pipeline = FluxFillPipeline(None, family.vae, None, None, None, None, None)
    mask, masked = pipeline.prepare_mask_latents(
        covered, unscaled, 1, 16, 1, HEIGHT, WIDTH, torch.float32, torch.device("cpu"), None
    )
    assert told.shape == (1, 20, 384)
    assert torch.allclose(told[..., 64:128], masked, atol=1e-5)
    assert torch.equal(told[..., 128:], mask)


def test_fill_makes_a_picture_from_words_alone() -> None:
    """Without a canvas, Fill is told that everything is selected."""
    with _heard(family_of("fill").transformer) as calls:
        _latents("fill", PAINTING)
    assert (calls[0]["hidden_states"][..., 128:] == 1).all()


# References


def test_redux_concatenates_references() -> None:
    """Several references follow the text one after the other; neither they nor the text are added up."""
    family, pixels = family_of("redux"), flux1.references_of("redux", replace(TEXT, references=2))
    with _heard(family.transformer) as calls:
        _latents("redux", replace(PAINTING, references=pixels))

    told = calls[0]["encoder_hidden_states"]
    with torch.inference_mode():
        text, gist = family.encode_prompt(PAINTING.prompt)
        each = [family.encode_reference(_picture(found))[0] for found in pixels]
    assert [tokens.shape[1] for tokens in each] == [4, 4]
    assert torch.allclose(told, torch.cat([text, *each], dim=1), atol=1e-5)
    assert torch.allclose(calls[0]["pooled_projections"], gist, atol=1e-5)
    assert calls[0]["txt_ids"].shape == (512 + 8, 3)
    assert calls[0]["img_ids"].shape == (20, 3)


def test_kontext_puts_each_reference_in_a_time_of_its_own() -> None:
    """References follow the picture's tokens, in times 1 and 2, from the upper left corner on."""
    pixels = flux1.references_of("kontext", replace(TEXT, references=2))
    with _heard(family_of("kontext").transformer) as calls:
        _latents("kontext", replace(PAINTING, references=pixels))

    places = calls[0]["img_ids"]
    assert places[:, 0].unique(return_counts=True)[1].tolist() == [20, 18, 8]
    assert places[20:38].tolist() == [[1, y, x] for y in range(3) for x in range(6)]
    assert calls[0]["txt_ids"].shape == (512, 3)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((64, 96), (64, 96)),
        ((50, 70), (48, 64)),
        ((7, 7), (16, 16)),
        ((1024, 1024), (1024, 1024)),
        ((4000, 3000), (1168, 880)),
        ((10_000, 20), (10_000, 16)),
        ((1, 1_000_000), (16, 65_536)),
    ],
)
def test_references_are_fitted(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    """References are shrunk to a megapixel, keep their shape but for whole tokens, and are not enlarged but to one."""
    assert fitted_size(size, 1024 * 1024, 16) == fitted


def test_kontext_takes_references_of_any_size() -> None:
    """A reference whose sides are no multiples of 16 is resized, not cut off."""
    family, picture = family_of("kontext"), torch.rand(1, 3, 70, 50) * 2 - 1
    with torch.inference_mode():
        (latents,) = family.encode_reference(picture)
        expected = family.encode(resized(picture, (48, 64)))
    assert latents.shape == (1, 16, 8, 6)
    assert torch.equal(latents, expected)


def test_resizing_keeps_pictures_within_their_range() -> None:
    """A hard edge does not overshoot, and a picture that has the size already is left alone."""
    picture = torch.cat([torch.full((1, 3, 64, 40), -1.0), torch.ones(1, 3, 64, 40)], dim=3)
    smaller = resized(picture, (48, 32))

    assert smaller.shape == (1, 3, 32, 48)
    assert smaller.abs().max() <= 1
    assert smaller[..., 0].mean() < -0.99 < 0.99 < smaller[..., -1].mean()
    assert resized(picture, (80, 64)) is picture


def test_fill_has_no_place_for_references() -> None:
    """Fill takes no references unless it comes with the parts of Redux."""
    assert not family_of("fill").takes_references
    assert family_of("kontext").takes_references
    with pytest.raises(NotImplementedError, match="no place for references"):
        family_of("fill").encode_reference(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_kontext_sees_the_canvas(variant: str) -> None:
    """Kontext is known by its pipeline's name, and wants the canvas as its first reference."""
    assert family_of(variant).sees_canvas == (variant == "kontext")


def test_an_edit_in_a_selection_keeps_what_is_around_it() -> None:
    """Outside the selection, the latents are the canvas' own when Kontext is done."""
    found = painted("kontext", TASKS["kontext"][2], "euler")
    with torch.inference_mode():
        known = family_of("kontext").encode(_picture(flux1.canvas()))
    outside = torch.ones_like(found, dtype=torch.bool)
    outside[..., 2:5, 1:7] = False

    assert torch.allclose(found[outside], known[outside], atol=1e-5)
    assert difference(found[~outside], known[~outside]) > 0.5


# Prompts


@pytest.mark.parametrize("variant", ["schnell", "dev"])
@pytest.mark.parametrize("word", ["a", "bc", "def"])
def test_what_t5_does_not_take_is_told(variant: str, word: str) -> None:
    """What is left out is exactly what the embedding does not depend on, wherever in a word the end falls."""
    family = family_of(variant)
    prompt = " ".join([word] * 400)
    rest = family.left_out(prompt)
    taken = prompt[: len(prompt) - len(rest)]
    changed = [prompt, taken + "z" * len(rest), taken.rstrip()[:-1] + "z" + prompt[len(taken.rstrip()) :]]
    embeddings = [_embedding(family, text) for text in changed]

    assert prompt.endswith(rest)
    assert torch.equal(embeddings[1], embeddings[0])
    assert not torch.allclose(embeddings[2], embeddings[0], atol=1e-3)


def test_schnell_takes_half_as_much() -> None:
    """T5 is given 256 tokens for schnell and 512 for the others, of which the last one says that the text ends."""
    lengths = {variant: _embedding(family_of(variant), "a").shape[1] for variant in VARIANTS}
    assert lengths == {"schnell": 256, "dev": 512, "fill": 512, "redux": 512, "kontext": 512}


def test_a_prompt_that_fits_is_taken_whole() -> None:
    """Nothing is left out of a prompt of as many tokens as T5 takes, or of none."""
    family = family_of("schnell")
    assert family.left_out("a" * 254) == ""  # and the token that begins a word
    assert family.left_out("a" * 255) == "a"
    assert family.left_out("") == ""


# Noise levels


@pytest.mark.parametrize("name", FLOW_NAMES)
def test_levels_are_shifted_for_the_size_in_every_task(name: str) -> None:
    """A larger picture stays longer among the noisy levels, refined or not; those of schnell do not depend on it."""
    for strength in (1.0, 0.6):
        small, large = (_timesteps("dev", name, strength, side) for side in (256, 1024))
        assert (large[1:] > small[1:]).all()
        assert torch.equal(*(_timesteps("schnell", name, strength, side) for side in (256, 1024)))


def test_levels_are_those_of_the_published_schedule() -> None:
    """At 1024² px, mu is 1.15: half of the steps are at levels above exp(1.15) / (exp(1.15) + 1)."""
    assert float(_timesteps("dev", "euler", 1.0, 1024)[2]) == pytest.approx(1000 * 0.75951, abs=0.1)


def _timesteps(variant: str, name: str, strength: float, side: int) -> Tensor:
    return family_of(variant).schedule(name, 4, strength, (side, side)).timesteps


# Pictures


def test_pictures_are_the_classic_pipelines() -> None:
    """What is decoded is the classic pipeline's picture, of latents with a scale and a shift."""
    family = family_of("dev")
    latents = painted("dev", TEXT, "euler")
    with torch.inference_mode():
        ours = family.decode(latents)
        theirs = family.vae.decode(latents / 0.3611 + 0.1159).sample
        without_shift = family.vae.decode(latents / 0.3611).sample
    assert difference(ours, theirs) <= MOST_DIFFERENCE
    assert difference(ours, without_shift) >= NOTICED


def test_a_batch_is_its_pictures() -> None:
    """Each picture of a batch is what its seed gives alone, references and all."""
    pixels = flux1.references_of("kontext", replace(TEXT, references=1))
    painting = replace(PAINTING, seeds=[11, 12], references=pixels)
    both = _latents("kontext", painting)

    for number, seed in enumerate(painting.seeds):
        alone = _latents("kontext", replace(painting, seeds=[seed]))
        assert difference(both[number : number + 1], alone) <= MOST_DIFFERENCE


@pytest.mark.parametrize("variant", ["fill", "redux", "kontext"])
def test_it_paints_in_bfloat16(variant: str, tmp_path: Path) -> None:
    """On a device with half precision all but CLIP calculates in bfloat16, and the picture is nearly the same."""
    device = Device(torch.device("cpu"), torch.float16, "as if it were a GPU")
    model = Library(device).load(build_tiny_flux1(tmp_path / variant, variant), lambda fraction: None, Event())
    family = model.family
    assert isinstance(family, Flux1)
    pixels = flux1.references_of(variant, replace(TEXT, references=1)) if variant != "fill" else []
    painting = replace(PAINTING, references=pixels)
    with torch.inference_mode():
        latents = paint_latents(model, painting, QUIET)
        picture = family.decode(latents)

    assert family.transformer.dtype == family.parts["text_encoder_2"].dtype == family.vae.dtype == torch.bfloat16
    assert family.parts["text_encoder"].dtype == torch.float16
    assert latents.dtype == picture.dtype == torch.float32
    assert difference(latents, _latents(variant, painting)) < 0.15


# Files


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("transformer/config.json", {"in_channels": 128}, "128 input channels, not 64 or 384"),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, "DDIMScheduler"),
        ("vae/config.json", {"latent_channels": 4}, "64 input channels, not 16 or 288"),
        ("vae/config.json", {"shift_factor": ...}, "none of FLUX.1"),
    ],
)
def test_models_that_are_none_of_flux1_are_refused(
    damaged: Callable[[str], Path], file: str, change: dict[str, Any], words: str
) -> None:
    """Before anything large is read, a configuration that FLUX.1 never has is refused in words."""
    folder = damaged("dev")
    config = json.loads((folder / file).read_text()) | change
    (folder / file).write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    _forget_weights(folder)

    with pytest.raises(BadFiles, match=words):
        _load(folder)


@pytest.mark.parametrize("part", ["image_encoder", "image_embedder", "feature_extractor"])
def test_half_a_redux_is_refused(damaged: Callable[[str], Path], part: str) -> None:
    """A model that has some of Redux's parts, but not all, says which."""
    folder = damaged("redux")
    shutil.rmtree(folder / part)
    _forget_weights(folder)

    with pytest.raises(BadFiles, match="but not all of image_encoder, image_embedder, feature_extractor"):
        _load(folder)


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[str], Path]:
    """A tiny model of one of the variants, to be damaged."""

    def build(variant: str) -> Path:
        return build_tiny_flux1(tmp_path / variant, variant).folder

    return build


def _forget_weights(folder: Path) -> None:
    """So that whoever reads them first fails otherwise than by the words."""
    for weights in folder.glob("*/*.safetensors"):
        weights.unlink()


def _load(folder: Path) -> Flux1:
    return Flux1.load(FolderSource(folder), open_device("cpu"), lambda fraction: None)


@torch.inference_mode()
def _latents(variant: str, painting: Painting) -> Tensor:
    return paint_latents(tiny_flux1(variant), painting, QUIET)


@torch.inference_mode()
def _embedding(family: Flux1, prompt: str) -> Tensor:
    return family.encode_prompt(prompt)[0]


def _picture(pixels: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(pixels).movedim(-1, 0)[None].float() / 127.5 - 1


@contextmanager
def _heard(network: Any) -> Iterator[list[dict[str, Any]]]:
    """What a network is called with, meanwhile."""
    calls: list[dict[str, Any]] = []
    hook = network.register_forward_pre_hook(lambda module, given, told: calls.append(told), with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()
