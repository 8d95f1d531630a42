"""SDXL: two text encoders, sizes that the UNet is told of, and what must not pass for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from parities import unet
from underpaint_backend.engine.denoise import Step
from underpaint_backend.engine.device import Device, open_device
from underpaint_backend.engine.exceptions import ModelBroken
from underpaint_backend.engine.families import Conditions, Family
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, paint_latents
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.tiny import build_tiny, build_tiny_xl, described


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny SDXL."""
    return loaded(build_tiny_xl(tmp_path_factory.mktemp("models") / "xl", 4))


def loaded(entry: Entry, device: Device | None = None) -> LoadedModel:
    """The model of an entry."""
    return Library(device or open_device("cpu")).load(entry, lambda fraction: None, Event())


@torch.inference_mode()
def told(family: Family, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """What the UNet is told besides the text for a picture of this size."""
    heard: dict[str, Any] = {}
    network = family.parts["unet"]
    forward = network.forward

    def overhear(*args: Any, **options: Any) -> Any:
        heard.update(options["added_cond_kwargs"])
        return forward(*args, **options)

    monkeypatch.setattr(network, "forward", overhear)
    conditions = Conditions(family.encode_prompt("a dog"), family.encode_prompt(""), 3.0, size)
    family.predictor(conditions, 2)(torch.zeros(2, 4, size[1] // 4, size[0] // 4), torch.tensor(10))
    return heard


def test_the_unet_is_told_the_size_of_an_uncut_picture(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Height before width, no cut, and the same size as target, for all images of a batch."""
    heard = told(model.family, (96, 64), monkeypatch)

    assert heard["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]] * 4


def test_no_prompt_is_zeros(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the training, what is empty is told as zeros, in the text and in its summary."""
    with torch.inference_mode():
        empty, full = model.family.encode_prompt(""), model.family.encode_prompt("a dog")

    assert [tensor.shape for tensor in empty] == [tensor.shape for tensor in full]
    assert not any(tensor.any() for tensor in empty)
    assert all(tensor.any() for tensor in full)
    summaries = told(model.family, (64, 64), monkeypatch)["text_embeds"]
    assert not summaries[:2].any()
    torch.testing.assert_close(summaries[2:], full[1].expand(2, -1))


def test_full_strength_forgets_the_canvas_and_runs_all_steps(model: LoadedModel) -> None:
    """diffusers' SDXL inpainting leaves out a step at its default strength, 0.9999, and begins with the canvas."""
    steps: list[Step] = []
    painting = Painting((64, 64), "a dog", "", 3.0, "ddim", 5, 1.0, [1], unet.canvas())
    with torch.inference_mode():
        paint_latents(model, painting, Observer(lambda phase: None, steps.append))

    assert [(step.number, step.total) for step in steps] == [(number, 5) for number in range(1, 6)]


def test_the_vae_stays_in_full_precision(tmp_path: Path) -> None:
    """In half precision SDXL's VAE overflows: whatever the rest calculates in, it does not."""
    half = Device(torch.device("cpu"), torch.float16, "a CPU that prefers halves")
    family = loaded(build_tiny_xl(tmp_path / "xl", 4), half).family

    assert family.parts["vae"].dtype == torch.float32
    assert family.parts["unet"].dtype == family.parts["text_encoder_2"].dtype == torch.float16


@pytest.mark.parametrize("build", [build_tiny, build_tiny_xl])
def test_what_is_left_out_of_a_prompt_is_said(build: Callable[[Path, int], Entry], tmp_path: Path) -> None:
    """The end that CLIP does not take is given back as it was written, and cutting it changes nothing."""
    family = loaded(build(tmp_path / "tiny", 4)).family
    short, long = "A Big  Dog", "A Big  Dog, by the SEA and far away"

    assert family.left_out(short) == ""
    rest = family.left_out(long)
    assert rest == "away"
    with torch.inference_mode():
        cut, whole = family.encode_prompt(long.removesuffix(rest)), family.encode_prompt(long)
    assert all(torch.equal(first, second) for first, second in zip(cut, whole, strict=True))


def test_a_prompt_of_ten_thousand_words_is_cut(model: LoadedModel) -> None:
    """However long a prompt is, the model takes its beginning."""
    prompt = "red dog " * 5000
    rest = model.family.left_out(prompt)

    assert 0 < len(prompt) - len(rest) < 40
    with torch.inference_mode():
        assert model.family.encode_prompt(prompt)[0].shape == model.family.encode_prompt("dog")[0].shape


def changed(folder: Path, part: str, **values: Any) -> None:
    """Other values in the configuration of a part."""
    path = folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_other_unets_are_no_sdxl(tmp_path: Path) -> None:
    """Stable Diffusion 1.5, a refiner and a UNet of 8 channels are refused with a reason, and so is SDXL elsewhere."""
    plain = build_tiny(tmp_path / "plain", 4)
    with pytest.raises(ModelBroken, match="no SDXL"):
        loaded(described(plain.folder, "stable_diffusion_xl"))

    large = build_tiny_xl(tmp_path / "large", 4)
    with pytest.raises(ModelBroken, match="no Stable Diffusion 1 or 2"):
        loaded(described(large.folder, "stable_diffusion"))

    changed(large.folder, "unet", projection_class_embeddings_input_dim=5 * 8 + 32)
    with pytest.raises(ModelBroken, match="no SDXL base model"):
        loaded(described(large.folder, "stable_diffusion_xl"))

    changed(large.folder, "unet", in_channels=8)
    with pytest.raises(ModelBroken, match="8 input channels"):
        loaded(described(large.folder, "stable_diffusion_xl"))
