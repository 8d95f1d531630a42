"""FLUX.2 klein, klein base and dev: the same pictures as diffusers', and what is easily got wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from parities import MOST_DIFFERENCE, MOST_PREVIEW_ERROR, Case
from parities.flux2 import CANVAS, CELLS, NEGATIVE, PROMPT, SIZE, TASKS, Task, cases, paired, picture
from parities.tiny_flux2 import VARIANTS, build_tiny_flux2
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from underpaint_backend.engine.denoise import Step
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import BadFiles
from underpaint_backend.engine.families import Conditions
from underpaint_backend.engine.families.flux2 import Flux2, empirical_shift
from underpaint_backend.engine.painting import Observer, Painting, Source, paint_latents
from underpaint_backend.engine.sources import FolderSource

WORDS, REFERENCES, REFINE, SOFT, EDIT = TASKS
LONG = "a house by the sea, " * 40
"""More than 512 tokens: tiny tokenizers have one for each byte."""


def family(variant: str) -> Flux2:
    """The tiny model of a variant."""
    found = paired(variant).model.family
    assert isinstance(found, Flux2)
    return found


def painted(variant: str, **changes: Any) -> Tensor:
    """Latents after three steps."""
    painting = Painting(SIZE, PROMPT, NEGATIVE, 3.0, "euler", 3, 1.0, (5,))
    observer = Observer(lambda phase: None, lambda step: None)
    with torch.inference_mode():
        return paint_latents(paired(variant).model, replace(painting, **changes), observer)


def as_picture(width: int, height: int) -> Tensor:
    """A picture [1, 3, height, width] in -1..1."""
    return torch.tensor(picture(width, height, 4)).movedim(-1, 0)[None] / 127.5 - 1


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_it_paints_what_diffusers_paints(case: Case) -> None:
    """Final latents are diffusers', or those of a loop that is written out; previews are right."""
    measured = case.measure()
    assert measured.difference <= MOST_DIFFERENCE
    assert measured.preview_error <= MOST_PREVIEW_ERROR


@pytest.mark.parametrize(
    ("variant", "task", "scheduler"),
    [
        ("klein base", REFERENCES, "dpm++2m"),
        ("klein base", EDIT, "euler"),
        ("dev", REFERENCES, "euler"),
        ("dev", REFERENCES, "unipc"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_loops_that_are_written_out_are_diffusers(variant: str, task: Task, scheduler: str) -> None:
    """Where diffusers has a pipeline, the loop that stands in for one elsewhere gives the same latents."""
    pair = paired(variant)
    assert pair.has_pipeline(task, scheduler)
    theirs = pair.paint_classically(task, scheduler)
    assert (pair.paint_by_hand(task, scheduler) - theirs).norm() / theirs.norm() <= MOST_DIFFERENCE


@pytest.mark.parametrize("prompt", [PROMPT, "", "You", LONG, "a [IMG] sign"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_prompts_are_read_as_diffusers_reads_them(variant: str, prompt: str) -> None:
    """Embeddings are diffusers' to the bit, though nothing above the last layer that is read was loaded."""
    with torch.inference_mode():
        (ours,) = family(variant).encode_prompt(prompt)
        theirs = paired(variant).pipeline.encode_prompt(prompt)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(("variant", "layers"), [("klein", 27), ("dev", 30)])
def test_only_what_is_read_is_loaded(variant: str, layers: int) -> None:
    """Neither the layers above the last that is read are loaded, nor the words to go on with, nor eyes."""
    names = [name for name, _ in family(variant).parts["text_encoder"].named_parameters()]
    highest = max(int(name.split("layers.")[1].split(".")[0]) for name in names if "layers." in name)
    assert highest == layers - 1
    assert not [name for name in names if "lm_head" in name or "vision" in name or name.endswith("model.norm.weight")]


def test_mistrals_files_may_have_newer_names(tmp_path: Path) -> None:
    """A text encoder that was saved under the names that its library uses today is read as well."""
    build_tiny_flux2(tmp_path, "dev")
    file = tmp_path / "text_encoder" / "model.safetensors"
    old = load_file(file)
    new = {name.replace("language_model.model.", "model.language_model."): weight for name, weight in old.items()}
    assert new.keys() != old.keys()
    save_file(new, file, {"format": "pt"})

    model = Flux2.load(FolderSource(tmp_path), open_device("cpu"), lambda fraction: None)
    with torch.inference_mode():
        (ours,), (before,) = model.encode_prompt(PROMPT), family("dev").encode_prompt(PROMPT)
    torch.testing.assert_close(ours, before, rtol=0, atol=0)


def test_mistrals_tokenizer_is_what_its_file_says(tmp_path: Path) -> None:
    """A configuration may name Llama's tokenizer, which would cut words in another way than the file says."""
    build_tiny_flux2(tmp_path, "dev")
    _change("tokenizer/tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")(tmp_path)
    model = Flux2.load(FolderSource(tmp_path), open_device("cpu"), lambda fraction: None)
    words = "[INST]a red circle, ünd"
    assert model.tokenizer(words).input_ids == family("dev").tokenizer(words).input_ids


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_end_of_a_long_prompt_is_said_to_be_left_out(variant: str) -> None:
    """What is left out changes nothing, and what comes just before it does."""
    model = family(variant)
    left = model.left_out(LONG)
    kept = LONG.strip().removesuffix(left)
    assert left
    assert kept + left == LONG.strip()

    with torch.inference_mode():
        whole, others, less = (
            model.encode_prompt(words)[0] for words in (LONG, kept + "!" * len(left), kept.strip()[:-1] + "!" + left)
        )
    torch.testing.assert_close(whole, others, rtol=0, atol=0)
    assert not torch.equal(whole, less)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_left_out_of_a_prompt_that_fits(variant: str) -> None:
    """A short prompt is read as a whole, also one that the words around it hold, too."""
    assert [family(variant).left_out(prompt) for prompt in (PROMPT, "", "You", "assistant")] == [""] * 4


def test_latents_are_normalised_by_the_statistics_of_patches() -> None:
    """Latents are the autoencoder's, in patches, as its own BatchNorm would make them: not scaled and shifted."""
    model = family("klein")
    norm = model.vae.bn
    pictures = as_picture(96, 64)
    with torch.inference_mode():
        cells = model.vae.encode(pictures).latent_dist.mode()
        ours = model.encode(pictures)
        # Row, column and channel of a cell of the autoencoder, and where it went.
        row, column, channel = 5, 8, 31
        patch = 4 * channel + 2 * (row % 2) + column % 2
        value = (cells[0, channel, row, column] - norm.running_mean[patch]) / (norm.running_var[patch] + 1e-4).sqrt()

    assert ours.shape == (1, 128, *CELLS)
    torch.testing.assert_close(ours[0, patch, row // 2, column // 2], value)
    torch.testing.assert_close(ours, torch.nn.Module.__call__(norm.eval(), torch.pixel_unshuffle(cells, 2)))


def test_decoding_undoes_encoding() -> None:
    """The autoencoder decodes exactly what it encoded."""
    model = family("klein")
    pictures = as_picture(96, 64)
    with torch.inference_mode():
        ours = model.decode(model.encode(pictures))
        theirs = model.vae.decode(model.vae.encode(pictures).latent_dist.mode()).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_noise_is_unit_noise_in_the_space_of_latents() -> None:
    """Noise has the shape of latents, and no statistics of the autoencoder are applied to it."""
    noise = family("dev").noise([torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)], (512, 256))
    assert noise.shape == (2, 128, 16, 32)
    assert abs(float(noise.mean())) < 0.01
    assert float(noise.std()) == pytest.approx(1, abs=0.01)


def test_the_preview_has_a_pixel_for_each_token() -> None:
    """The projection is fitted to the 128 normalised channels, at a sixteenth of the size."""
    model = paired("klein").model
    with torch.inference_mode():
        preview = model.projection(model.family.encode(as_picture(96, 64)))
    assert preview.shape == (1, *CELLS, 3)
    assert model.projection.weight.shape == (128, 3)


@pytest.mark.parametrize("tokens", [24, 1024, 4096, 4300, 4301, 16384])
@pytest.mark.parametrize("steps", [1, 4, 10, 50, 200])
def test_the_shift_is_diffusers(tokens: int, steps: int) -> None:
    """The shift depends on the tokens and, for small pictures, on the steps."""
    assert empirical_shift(tokens, steps) == pytest.approx(compute_empirical_mu(tokens, steps), rel=1e-12)


def test_the_levels_are_those_of_size_and_steps_in_every_task() -> None:
    """A strength runs the end of the same levels, and a larger picture stays longer among the noisy ones."""
    model = family("klein")
    whole = model.schedule("euler", 10, 1.0, (1024, 1024)).timesteps
    part = model.schedule("euler", 10, 0.6, (1024, 1024)).timesteps
    torch.testing.assert_close(part, whole[4:])

    shift = np.exp(compute_empirical_mu(4096, 10))
    assert float(whole[5]) == pytest.approx(1000 * shift * 0.5 / (1 + (shift - 1) * 0.5), rel=1e-6)
    assert float(model.schedule("euler", 10, 1.0, (2048, 2048)).timesteps[5]) > float(whole[5])


def test_four_steps_are_four_evaluations() -> None:
    """klein paints in 4 steps, from pure noise."""
    steps: list[Step] = []
    pair = paired("klein")
    painting = Painting(SIZE, PROMPT, "", 1.0, "euler", pair.model.description.default_steps, 1.0, (5,))
    with torch.inference_mode():
        paint_latents(pair.model, painting, Observer(lambda phase: None, steps.append))
    assert [(step.number, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert float(pair.model.family.schedule("euler", 4, 1.0, SIZE).timesteps[0]) == 1000


@pytest.mark.parametrize(
    ("variant", "guidance", "negative"), [("klein", False, False), ("klein base", True, True), ("dev", True, False)]
)
def test_who_listens_to_guidance(variant: str, guidance: bool, negative: bool) -> None:
    """klein ignores guidance, klein base follows it away from a negative prompt, and dev knows of it by itself."""
    assert torch.equal(painted(variant), painted(variant, guidance=5.0)) is not guidance
    assert torch.equal(painted(variant), painted(variant, negative_prompt="a dog")) is not negative
    assert family(variant).is_guided(4.0) is negative
    assert not family(variant).is_guided(1.0)


def test_references_lie_at_their_own_times() -> None:
    """Position ids are time, row, column and place in the text; references lie at 10, 20, ... in grids of their own."""
    model = family("dev")
    seen: dict[str, Tensor] = {}
    handle = model.transformer.register_forward_pre_hook(
        lambda module, positional, named: seen.update(named), with_kwargs=True
    )
    references = (torch.zeros(1, 128, 2, 3),), (torch.zeros(1, 128, 1, 2),)
    with torch.inference_mode(), handle:
        prompt = model.encode_prompt(PROMPT)
        predict = model.predictor(Conditions(prompt, None, 4.0, (32, 16), references=references), 2)
        output = predict(torch.zeros(2, 128, 1, 2), torch.tensor(500.0))

    assert output.shape == (2, 128, 1, 2)
    picture_ids, first, second = seen["img_ids"].split([2, 6, 2])
    assert picture_ids.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]
    assert first.tolist() == [[10, row, column, 0] for row in range(2) for column in range(3)]
    assert second.tolist() == [[20, 0, 0, 0], [20, 0, 1, 0]]
    assert seen["txt_ids"][:3].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2]]
    assert len(seen["txt_ids"]) == 512


def test_the_order_of_references_counts() -> None:
    """A prompt may speak of the first reference and of the second."""
    first, second = picture(64, 64, 7), picture(64, 64, 8)
    assert not torch.equal(painted("klein", references=(first, second)), painted("klein", references=(second, first)))


@pytest.mark.parametrize(
    ("size", "count", "fitted"),
    [
        ((96, 64), 1, (96, 64)),
        ((90, 70), 1, (80, 64)),
        ((7, 7), 1, (16, 16)),
        ((1, 5000), 3, (16, 4992)),
        ((2024, 2024), 1, (2016, 2016)),
        ((3000, 2000), 1, (2464, 1648)),
        ((3000, 2000), 2, (1248, 832)),
        ((1024, 1024), 4, (1024, 1024)),
        ((200_000, 20), 2, (65_536, 16)),
    ],
)
def test_references_are_fitted(size: tuple[int, int], count: int, fitted: tuple[int, int]) -> None:
    """Sides are multiples of 16; a single reference may have 2024² px, each of several 1024², and none is enlarged."""
    height, width = family("klein").fitted_reference(torch.zeros(1, 3, size[1], size[0]), count).shape[-2:]
    assert (width, height) == fitted
    assert width * height <= (2024 * 2024 if count == 1 else 1024 * 1024)


def test_large_references_are_resampled_and_cropped_as_diffusers_does() -> None:
    """One of several references of over a megapixel is diffusers' to the bit of a byte."""
    pixels = picture(1301, 1003, 9)
    processor = Flux2ImageProcessor(vae_scale_factor=16)
    smaller = processor._resize_to_target_area(Image.fromarray(pixels), 1024 * 1024)
    width, height = (side // 16 * 16 for side in smaller.size)
    theirs = processor.preprocess(smaller, height=height, width=width, resize_mode="crop")

    ours = family("klein").fitted_reference(torch.tensor(pixels).movedim(-1, 0)[None] / 127.5 - 1, 2)

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_reference_that_nobody_fitted_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference of any size is encoded within what a single one may have."""
    model, sizes = family("klein"), []

    def encode(pictures: Tensor) -> Tensor:
        sizes.append(tuple(pictures.shape))
        return torch.zeros(1, 128, 1, 1)

    monkeypatch.setattr(model, "encode", encode)
    model.encode_reference(torch.zeros(1, 3, 2000, 3000))
    assert sizes == [(1, 3, 1648, 2464)]


def test_inpainting_keeps_the_surroundings_and_softly() -> None:
    """Latents outside the selection are the canvas's own; where it is half selected they lie between."""
    coverage = np.zeros((SIZE[1], SIZE[0]), np.float32)
    coverage[:, 32:64], coverage[:, 64:] = 0.5, 1
    canvas = Source(CANVAS, coverage)
    for variant in VARIANTS:
        with torch.inference_mode():
            known = family(variant).encode(torch.tensor(CANVAS).movedim(-1, 0)[None] / 127.5 - 1)
        moved = (painted(variant, source=canvas) - known).square().mean((0, 1, 2))
        assert moved[:2].max() < 1e-10
        assert 0 < moved[2:4].mean() < moved[4:].mean()


def test_the_canvas_is_worth_seeing() -> None:
    """FLUX.2 was not trained to fill masks: it is shown the canvas as a reference."""
    assert Flux2.sees_canvas
    canvas = EDIT.source
    alone, shown = painted("klein", source=canvas), painted("klein", source=canvas, references=(CANVAS,))
    assert not torch.equal(alone, shown)


@pytest.mark.parametrize("variant", ["klein base", "dev"])
def test_a_batch_paints_what_its_seeds_paint_alone(variant: str) -> None:
    """Each picture of a batch is the picture of its seed, with references and guidance."""
    references = (picture(64, 48, 3), picture(32, 64, 4))
    together = painted(variant, seeds=(5, 6), references=references)
    alone = torch.cat([painted(variant, seeds=(seed,), references=references) for seed in (5, 6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def _change(file: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _remove(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_change("transformer/config.json", _class_name="FluxTransformer2DModel"), "not Flux2Transformer2DModel"),
        (_change("transformer/config.json", in_channels=64), "64 input channels"),
        (_change("transformer/config.json", joint_attention_dim=7680), "reads 7680 numbers"),
        (_change("text_encoder/config.json", model_type="llama"), "of the kind llama, not qwen3 or mistral3"),
        (_change("text_encoder/config.json", num_hidden_layers=24), "24 layers, but 27 are read"),
        (_change("scheduler/scheduler_config.json", _class_name="DDIMScheduler"), "DDIMScheduler"),
        (_remove("tokenizer/chat_template.jinja"), "no chat template"),
        (_remove("text_encoder/config.json"), "text_encoder"),
        (_remove("model_index.json"), "model_index.json"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(
    damage: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    """What does not fit together is refused before weights are read, and the reason says what it is."""
    build_tiny_flux2(tmp_path, "klein")
    damage(tmp_path)
    with pytest.raises(BadFiles, match=words) as caught:
        Flux2.load(FolderSource(tmp_path), open_device("cpu"), lambda fraction: pytest.fail("weights are read"))
    assert str(tmp_path) not in str(caught.value)
