"""Pipelines of diffusers that nothing else here knows: they run as a whole, with previews, and can be cancelled."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray
from parities.tiny_unet import clip_text, diffusion_scheduler, tokenizer, unet, vae
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer
from underpaint_backend.engine.cancel import Cancelled
from underpaint_backend.engine.denoise import Step
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import ModelBroken, OutOfMemory, UnknownScheduler
from underpaint_backend.engine.families.classic import Classic
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, Source, paint
from underpaint_backend.models.catalog import Entry
from underpaint_backend.models.schedulers import OWN

from tests.backend.engine.cancelling import SetAfter
from tests.backend.engine.tiny import described

pytestmark = [
    # Chroma is built of a class that diffusers itself is about to move.
    pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated:FutureWarning"),
    # One canvas for a batch is what we mean.
    pytest.mark.filterwarnings("ignore:You have passed 2 text prompts:FutureWarning"),
]

SIZE = 64
PAINTING = Painting((SIZE, SIZE), "a dog", "a cat", 3.0, OWN, 3, 1.0, [1, 2])


def canvas() -> Source:
    """A picture of noise with a selection."""
    coverage = np.zeros((SIZE, SIZE), np.float32)
    coverage[16:48, 16:48] = 1
    return Source(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8), coverage)


def t5() -> dict[str, Any]:
    """T5's encoder and a tokenizer of single letters."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(97, 123))]
    config = T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    made = T5Tokenizer(vocab=[(piece, 0.0) for piece in pieces], extra_ids=0)
    return {"text_encoder": T5EncoderModel(config), "tokenizer": made}


def wide_vae() -> AutoencoderKL:
    """A VAE of 16 channels and 8 px, as those of flow models."""
    return vae(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def pixart() -> Any:
    """PixArt Σ: a transformer with noise levels of diffusion, which also says how sure it is."""
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=16,
        sample_size=16,
        patch_size=2,
        caption_channels=32,
        norm_num_groups=1,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler()
    return diffusers.PixArtSigmaPipeline(vae=vae(), transformer=transformer, scheduler=scheduler, **t5())


def chroma() -> Any:
    """Chroma: a flow transformer that keeps its latents as tokens."""
    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    scheduler = FlowMatchEulerDiscreteScheduler()
    return diffusers.ChromaPipeline(vae=wide_vae(), transformer=transformer, scheduler=scheduler, **t5())


def stable_diffusion_3() -> Any:
    """Stable Diffusion 3 without its T5."""
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=16,
        pos_embed_max_size=16,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=wide_vae(),
        text_encoder=CLIPTextModelWithProjection(clip_text(16, projection_dim=32)),
        tokenizer=tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_text(16, projection_dim=32)),
        tokenizer_2=tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )


def instruct_pix2pix() -> Any:
    """InstructPix2Pix: a UNet that is shown a whole picture to change."""
    return diffusers.StableDiffusionInstructPix2PixPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(clip_text(32)),
        tokenizer=tokenizer(),
        unet=unet(8),
        scheduler=diffusion_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def latent_consistency() -> Any:
    """A latent consistency model, which is told of its guidance."""
    return diffusers.LatentConsistencyModelPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(clip_text(32)),
        tokenizer=tokenizer(),
        unet=unet(4, time_cond_proj_dim=16),
        scheduler=diffusers.LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


KINDS: dict[str, Callable[[], Any]] = {
    made.__name__: made for made in (pixart, chroma, stable_diffusion_3, instruct_pix2pix, latent_consistency)
}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    """Load a tiny model of one of `KINDS`."""
    root = tmp_path_factory.mktemp("models")

    @cache
    def written(kind: str) -> LoadedModel:
        torch.manual_seed(3)
        return opened(write(root / kind, KINDS[kind]()))

    return written


def write(folder: Path, pipeline: Any) -> Entry:
    """The files of a pipeline."""
    pipeline.save_pretrained(folder)
    return described(folder, "classic", schedulers=(OWN, "euler"), default_scheduler=OWN, size_multiple=16)


def opened(entry: Entry) -> LoadedModel:
    """The model of an entry."""
    return Library(open_device("cpu")).load(entry, lambda fraction: None, Event())


def painted(model: LoadedModel, painting: Painting = PAINTING, cancelled: Event | None = None) -> NDArray[np.uint8]:
    """The pictures of a painting."""
    return paint(model, painting, Observer(lambda phase: None, lambda step: None), cancelled or Event())


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
def test_a_pipeline_paints_as_it_does_by_itself(load: Callable[[str], LoadedModel], kind: str) -> None:
    """Pictures are the pipeline's own to one level, phases come in order, and each step has its preview."""
    model = load(kind)
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
def test_the_last_preview_of_a_flow_is_what_it_ends_with(load: Callable[[str], LoadedModel], kind: str) -> None:
    """However a pipeline keeps its latents, its last preview has the colours of where Euler's last step leads."""
    model = load(kind)
    steps: list[Step] = []
    paint(model, PAINTING, Observer(lambda phase: None, steps.append), Event())

    latents = by_hand(model, output_type="latent")
    family = model.family
    assert isinstance(family, Classic)
    torch.testing.assert_close(steps[-1].x0, family._small(latents, (8, 8)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_cancelled_anywhere_leaves_no_trace(load: Callable[[str], LoadedModel], kind: str) -> None:
    """Cancelled at random points, a pipeline paints the same picture afterwards, bit by bit."""
    model = load(kind)
    never = SetAfter(float("inf"))
    expected = painted(model, cancelled=never)

    for point in random.Random(kind).sample(range(never.asked), 3):
        with pytest.raises(Cancelled):
            painted(model, cancelled=SetAfter(point))
        np.testing.assert_array_equal(painted(model), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_multiple_is_read_from_configurations(load: Callable[[str], LoadedModel], kind: str) -> None:
    """No network is loaded for it, and an odd number of them along a side is painted at just that size."""
    family = load(kind).family
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
def test_what_is_cut_off_a_prompt_is_told(load: Callable[[str], LoadedModel], kind: str, most: int) -> None:
    """The pipeline's own limit of tokens counts, with those for where the text begins and ends."""
    family = load(kind).family
    taken = most - (2 if kind == "latent_consistency" else 1)
    letters = "abcdefghijklmnopqrstuvwxyz" * 40
    assert family.left_out(letters[: taken - 1]) == ""
    rest = family.left_out(letters)
    tokenizer = family.parts.tokenizer("tokenizer", None)
    kept = letters[: len(letters) - len(rest)]
    assert rest
    assert letters.endswith(rest)
    assert len(tokenizer(kept, add_special_tokens=False).input_ids) == taken


def test_a_seed_paints_the_same_in_every_batch(load: Callable[[str], LoadedModel]) -> None:
    """Each picture of a batch is the picture of its seed, to one level."""
    model = load("stable_diffusion_3")
    alone = [painted(model, replace(PAINTING, seeds=[seed]))[0] for seed in PAINTING.seeds]

    assert np.abs(painted(model).astype(int) - np.stack(alone)).max() <= 1


def test_a_canvas_is_painted_by_the_pipeline_for_it(load: Callable[[str], LoadedModel]) -> None:
    """A model that was saved for words alone fills selections by the class that diffusers has for that."""
    model = load("stable_diffusion_3")
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
def test_an_editing_pipeline_is_shown_the_picture(load: Callable[[str], LoadedModel], as_reference: bool) -> None:
    """What is to be changed is the canvas, or a reference where there is one."""
    model, source = load("instruct_pix2pix"), canvas()
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


def test_a_size_that_a_pipeline_changes_is_changed_back(load: Callable[[str], LoadedModel]) -> None:
    """Pictures have the size that was asked for, also from pipelines that take that of the canvas."""
    source = canvas()
    wide = Source(np.tile(source.pixels, (1, 2, 1)), np.tile(source.coverage, (1, 2)))
    pictures = painted(load("instruct_pix2pix"), replace(PAINTING, size=(96, SIZE), source=wide))

    assert pictures.shape == (2, SIZE, 96, 3)


def test_schedulers_go_by_their_names(load: Callable[[str], LoadedModel]) -> None:
    """The model's own scheduler can be exchanged for others, and no other name is taken."""
    model = load("instruct_pix2pix")

    assert (painted(model) != painted(model, replace(PAINTING, scheduler="euler"))).any()
    np.testing.assert_array_equal(painted(model), painted(model, replace(PAINTING, scheduler="ddim")))
    with pytest.raises(UnknownScheduler):
        painted(model, replace(PAINTING, scheduler="guesswork"))


@pytest.mark.parametrize("name", ["heun", "dpm++2m", "ddim", "euler:2+heun:2"])
def test_a_scheduler_that_a_pipeline_refuses_is_said(load: Callable[[str], LoadedModel], name: str) -> None:
    """Instead of what diffusers says about it; the model paints afterwards as before."""
    model = load("chroma")
    expected = painted(model)
    with pytest.raises(UnknownScheduler) as caught:
        painted(model, replace(PAINTING, scheduler=name))
    assert f"“{name}”" in caught.value.info.message
    assert OWN in caught.value.info.hint
    np.testing.assert_array_equal(painted(model), expected)


@pytest.mark.parametrize(
    ("scheduler", "error", "expected"),
    [
        ("euler", ValueError("no such step"), UnknownScheduler),
        ("euler", torch.OutOfMemoryError("out of memory"), OutOfMemory),
        (OWN, ValueError("no such step"), ValueError),
    ],
)
def test_what_a_scheduler_raises_blames_it(
    entry: Entry, monkeypatch: pytest.MonkeyPatch, scheduler: str, error: Exception, expected: type[Exception]
) -> None:
    """If it was chosen, and if it was not for want of memory."""

    def step(self: Any, model_output: Any, timestep: Any, sample: Any, **_: Any) -> Any:
        raise error

    for cls in (diffusers.EulerDiscreteScheduler, diffusers.DDIMScheduler):
        monkeypatch.setattr(cls, "step", step)
    with pytest.raises(expected):
        painted(opened(entry), replace(PAINTING, scheduler=scheduler))


def refused(entry: Entry, words: str) -> None:
    """The model cannot be loaded, and the error says why."""
    with pytest.raises(ModelBroken, match=words):
        opened(entry)


def indexed(entry: Entry, **changes: Any) -> Entry:
    """The model with another index."""
    path = entry.folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return entry


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """A tiny model whose files may be damaged."""
    return write(tmp_path / "damaged", instruct_pix2pix())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "DreamPipeline"}, "no pipeline 'DreamPipeline'"),
        ({"_class_name": ["pipeline", "Evil"]}, "no other program is run"),
        ({"_class_name": "AutoencoderKL"}, "no other program is run"),
        ({"_class_name": "StableAudioPipeline"}, "does not make pictures"),
        ({"_class_name": "StableVideoDiffusionPipeline"}, "does not make pictures"),
        ({"unet": ["subprocess", "Popen"]}, "neither diffusers nor transformers has"),
        ({"unet": ["diffusers", "torch"]}, "neither diffusers nor transformers has"),
        ({"tokenizer": ["os", "system", "x"]}, "must be a library and a class"),
        ({"scheduler": ["diffusers", "AutoencoderKL"]}, "AutoencoderKL is no scheduler"),
        ({"scheduler": [None, None]}, "it has no scheduler"),
    ],
)
def test_no_other_program_is_run(entry: Entry, changes: dict[str, Any], words: str) -> None:
    """An index names a pipeline for pictures, made of classes of diffusers and transformers, or it is refused."""
    refused(indexed(entry, **changes), words)


def test_a_tokenizer_that_brings_a_program_does_not_run_it(entry: Entry) -> None:
    """Not even for one of the classes that look themselves for what to load."""
    ran = entry.folder / "ran"
    (entry.folder / "tokenizer" / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    config = entry.folder / "tokenizer" / "tokenizer_config.json"
    brought = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **brought}))

    refused(indexed(entry, tokenizer=["transformers", "AutoTokenizer"]), "contains custom code")
    assert not ran.exists()


def test_pickles_are_not_opened(entry: Entry) -> None:
    """Weights that are a pickle are refused unopened."""
    path = next((entry.folder / "unet").glob("*.safetensors"))
    path.rename(path.with_suffix(".bin"))

    refused(entry, "of a kind that can run any program")


def test_what_a_pipeline_can_do_without_may_be_missing(entry: Entry) -> None:
    """A safety checker and its image processor are named in many an index, and are not asked for."""
    judges = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    expected = painted(opened(entry))

    indexed(entry, feature_extractor=["transformers", "CLIPImageProcessor"], requires_safety_checker=True, **judges)

    np.testing.assert_array_equal(painted(opened(entry)), expected)


def test_a_damaged_index_is_said(entry: Entry) -> None:
    """An index that is no object or none at all is named in the error."""
    (entry.folder / "model_index.json").write_text("[]")
    refused(entry, "model_index.json must hold one object")
    (entry.folder / "model_index.json").write_text("{")
    refused(entry, "model_index.json: JSONDecodeError")
