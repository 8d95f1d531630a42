"""References of UNet models. That latents are the classic pipeline's is a row of the parity tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parities.tiny_unet import SEEN_SIDE
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import ModelBroken, NoReferences
from underpaint_backend.engine.families import Conditions
from underpaint_backend.engine.ip_adapter import as_clip_sees, wear
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, paint
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.counting import Counted
from tests.backend.engine.tiny import add_ip_adapter, build_tiny, build_tiny_xl

PAINTING = Painting((64, 64), "a dog", "a cat", 3.0, "ddim", 3, 1.0, [1])


def picture(seed: int, height: int = 40, width: int = 56) -> NDArray[np.uint8]:
    """A picture of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def loaded(entry: Entry) -> LoadedModel:
    """The model of an entry."""
    return Library(open_device("cpu")).load(entry, lambda fraction: None, Event())


def painted(model: LoadedModel, *references: NDArray[np.uint8], **changes: object) -> NDArray[np.uint8]:
    """The picture that is painted with these references."""
    painting = replace(PAINTING, references=references, **changes)  # type: ignore[arg-type]
    return paint(model, painting, Observer(lambda phase: None, lambda step: None), Event())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny model without an adapter."""
    return loaded(build_tiny(tmp_path_factory.mktemp("models") / "plain", 4))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The same model with an adapter."""
    return loaded(add_ip_adapter(build_tiny(tmp_path_factory.mktemp("models") / "adapted", 4)))


def test_every_reference_counts(adapted: LoadedModel) -> None:
    """Each of several references changes the picture."""
    one, other, both = (
        painted(adapted, picture(1)),
        painted(adapted, picture(2)),
        painted(adapted, picture(1), picture(2)),
    )

    assert (one != other).any()
    assert (one != both).any()
    assert (other != both).any()


def test_without_references_the_model_is_what_it_was(plain: LoadedModel, adapted: LoadedModel) -> None:
    """A model with an adapter paints the same, bit by bit, as one without, before and after it has had references."""
    expected = painted(plain)
    np.testing.assert_array_equal(painted(adapted), expected)
    painted(adapted, picture(1))
    np.testing.assert_array_equal(painted(adapted), expected)


def test_a_unet_serves_two_models(adapted: LoadedModel) -> None:
    """An adapter can be taken off and put on again, so that a model without it can have the same UNet."""
    family = adapted.family
    network = family.parts["unet"]
    expected = painted(adapted, picture(1))
    worn = dict(network.attn_processors)

    wear(network, None)

    text = torch.zeros(1, 24, 32)
    with torch.inference_mode():
        network(torch.zeros(1, 4, 16, 16), 1, encoder_hidden_states=text)
    assert all(network.attn_processors[name] is not worn[name] for name in worn if "attn2" in name)
    np.testing.assert_array_equal(painted(adapted, picture(1)), expected)


@pytest.mark.parametrize("plus", [False, True])
def test_guidance_in_two_passes_is_guidance_in_one(plus: bool, tmp_path: Path) -> None:
    """Where memory is short, the negative prompt has its own pass, and sees no reference there."""
    family = loaded(add_ip_adapter(build_tiny_xl(tmp_path / "xl", 4), plus)).family
    latents, timestep = torch.randn(2, 4, 16, 16), torch.tensor(300)
    with torch.inference_mode():
        prompt, negative = family.encode_prompt("a dog"), family.encode_prompt("a cat")
        references = (family.encode_reference(torch.rand(1, 3, 40, 56) * 2 - 1),)
        both = Conditions(prompt, negative, 3.0, (64, 64), references=references)
        alone = replace(both, negative_prompt=None)
        expected = family.predictor(both, 2)(latents, timestep)
        wanted = family.predictor(alone, 2)(latents, timestep)
        without = family.predictor(replace(alone, prompt=negative, negative=True), 2)(latents, timestep)

    torch.testing.assert_close(without + 3.0 * (wanted - without), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(40, 56), (300, 100), (SEEN_SIDE, SEEN_SIDE)])
def test_a_picture_is_prepared_as_clip_wants_it(height: int, width: int) -> None:
    """Scaled, cut to its middle and normalised, it is what CLIP's own processor makes of the pixels."""
    pixels = np.array(Image.fromarray(picture(3, 12, 9)).resize((width, height), Image.Resampling.BICUBIC))
    processor = CLIPImageProcessor(size={"shortest_edge": SEEN_SIDE}, crop_size=SEEN_SIDE)
    expected = torch.as_tensor(np.array(processor(Image.fromarray(pixels)).pixel_values[0]))

    ours = as_clip_sees(torch.tensor(pixels).movedim(-1, 0)[None] / 127.5 - 1, SEEN_SIDE)

    torch.testing.assert_close(ours[0], expected)


def test_what_a_reference_says_is_kept(adapted: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second job with the same reference does not encode it again; one with another reference encodes that."""
    seen = Counted(adapted.family.encode_reference)
    monkeypatch.setattr(adapted.family, "encode_reference", seen)
    painted(adapted, picture(7))
    painted(adapted, picture(7), seeds=[2])
    assert len(seen.calls) == 1

    painted(adapted, picture(8))
    assert len(seen.calls) == 2


def test_models_without_an_adapter_take_no_references(plain: LoadedModel) -> None:
    """They say so."""
    with pytest.raises(NoReferences, match="whatever its entry says"):
        painted(plain, picture(7))
    with pytest.raises(NotImplementedError, match="takes no references"):
        plain.family.encode_reference(torch.zeros(1, 3, 32, 32))


def weights_changed(entry: Entry, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Other weights in the file of the adapter."""
    path = entry.folder / "ip_adapter" / "ip-adapter.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def another_width(weights: dict[str, torch.Tensor]) -> None:
    """An adapter for another image encoder."""
    weights["image_proj.proj.weight"] = torch.zeros(4 * 32, 99)


def for_faces(weights: dict[str, torch.Tensor]) -> None:
    """An adapter that looks at what was measured in a face."""
    weights["image_proj.proj.0.weight"] = weights.pop("image_proj.proj.weight")


def other_tokens(weights: dict[str, torch.Tensor]) -> None:
    """An adapter for a UNet with other text encoders."""
    for name in [name for name in weights if name.startswith("ip_adapter.")]:
        weights[name] = torch.zeros(len(weights[name]), 48)


def too_few(weights: dict[str, torch.Tensor]) -> None:
    """An adapter for a UNet with fewer attentions."""
    for name in ("to_k_ip", "to_v_ip"):
        del weights[f"ip_adapter.3.{name}.weight"]


def torn(weights: dict[str, torch.Tensor]) -> None:
    """An adapter that lacks a weight."""
    del weights["ip_adapter.3.to_v_ip.weight"]


def of_nothing(weights: dict[str, torch.Tensor]) -> None:
    """A file of something else."""
    weights.clear()
    weights["lora.up.weight"] = torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (another_width, "says 24 numbers where the IP-Adapter wants 99"),
        (for_faces, "wants faces"),
        (other_tokens, "tokens of 48 numbers"),
        (too_few, "for another UNet"),
        (torn, "3.to_v_ip.weight"),
        (of_nothing, "of a kind that is not known"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], words: str
) -> None:
    """What is wrong is said, when the model is loaded or when it paints at the latest."""
    entry = add_ip_adapter(build_tiny(tmp_path / "tiny", 4))
    weights_changed(entry, change)

    with pytest.raises(ModelBroken, match=words):
        painted(loaded(entry), picture(1))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    """An adapter that is a pickle, as the first ones were released, is refused unopened."""
    entry = add_ip_adapter(build_tiny(tmp_path / "tiny", 4))
    path = entry.folder / "ip_adapter" / "ip-adapter.safetensors"
    path.rename(path.with_suffix(".bin"))

    with pytest.raises(ModelBroken, match=r"ip_adapter/ip-adapter\.bin is of a kind that can run any program"):
        loaded(entry)
