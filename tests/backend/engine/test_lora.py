"""LoRAs: what they do is what diffusers does with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor
from underpaint_backend.engine.families import Family
from underpaint_backend.engine.lora import LoraRack

from tests.backend.engine.lora_files import (
    RANK,
    TEXT,
    UNET,
    answer,
    factors,
    lora_for,
    wearing,
    write_kohya,
    write_peft,
)


@pytest.mark.parametrize("weight", [1.0, -0.7])
@pytest.mark.parametrize("write", [write_peft, write_kohya])
@pytest.mark.parametrize(
    ("name", "pipeline"),
    [("stable_diffusion", StableDiffusionPipeline), ("stable_diffusion_xl", StableDiffusionXLPipeline)],
)
def test_a_lora_does_what_diffusers_does_with_it(
    folders: Callable[[str], Path],
    load: Callable[[str], Family],
    tmp_path: Path,
    name: str,
    pipeline: Any,
    write: Callable[..., Path],
    weight: float,
) -> None:
    """In text encoders and UNet, with each trainer's names and its alphas, as peft calculates it."""
    family = load(name)
    layers: dict[str, tuple[str, ...]] = {"unet": UNET, "text_encoder": TEXT}
    if "xl" in name:
        layers["text_encoder_2"] = TEXT
    path = write(tmp_path / "style.safetensors", family, **layers)
    plain = answer(family)

    with wearing(LoraRack(), family, [(path, weight)]):
        found = answer(family)

    classic = pipeline.from_pretrained(folders(name), local_files_only=True)
    classic.load_lora_weights(str(path), adapter_name="style")
    classic.set_adapters(["style"], [weight])
    for part in layers:
        given = getattr(classic, part)
        family.parts.residency.forget([family.parts.key(part)])
        family.parts.residency.fetch(family.parts.key(part), 0, lambda given=given: given.eval().requires_grad_(False))
    expected = answer(family)
    assert (plain - expected).norm() > 0.01 * expected.norm(), "the LoRA must matter"
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("name", ["flux1", "flux2"])
def test_a_lora_of_a_transformer_does_what_diffusers_does_with_it(
    load: Callable[[str], Family], tmp_path: Path, name: str
) -> None:
    """As peft calculates it."""
    family = load(name)
    path = lora_for(name, family, tmp_path / "style.safetensors")
    plain = answer(family)

    with wearing(LoraRack(), family, [(path, 0.8)]):
        found = answer(family)

    family.parts["transformer"].load_lora_adapter(load_file(path), adapter_name="style")
    family.parts["transformer"].set_adapters(["style"], [0.8])
    expected = answer(family)
    assert (plain - expected).norm() > 0.01 * expected.norm(), "the LoRA must matter"
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("naming", ["lora_unet_", "diffusion_model.", "transformer.", ""])
@pytest.mark.parametrize("name", ["flux1", "flux2"])
def test_original_names_are_understood(load: Callable[[str], Family], tmp_path: Path, name: str, naming: str) -> None:
    """Queries, keys and values of the first authors are one layer; trainers write it with several prefixes."""
    family = load(name)
    generator = torch.Generator().manual_seed(0)
    width = family.parts["transformer"].inner_dim
    down, up = torch.randn(RANK, width, generator=generator), torch.randn(3 * width, RANK, generator=generator)
    base = "double_blocks.0.img_attn.qkv"
    if naming == "lora_unet_":
        base = naming + base.replace(".", "_")
        tensors = {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up, f"{base}.alpha": torch.tensor(1.0)}
        up = up / RANK
    else:
        tensors = {f"{naming}{base}.lora_A.weight": down, f"{naming}{base}.lora_B.weight": up}
    if name == "flux2":  # nothing but its sizes would tell it from FLUX.1, and these are tiny
        other = (
            "lora_unet_single_stream_modulation_lin"
            if naming == "lora_unet_"
            else f"{naming}single_stream_modulation.lin"
        )
        out = family.parts["transformer"].single_stream_modulation.linear.out_features
        half = ("lora_down", "lora_up") if naming == "lora_unet_" else ("lora_A", "lora_B")
        tensors |= {
            f"{other}.{half[0]}.weight": torch.zeros(RANK, width),
            f"{other}.{half[1]}.weight": torch.zeros(out, RANK),
        }
    save_file(tensors, tmp_path / "style.safetensors")

    with wearing(LoraRack(), family, [(tmp_path / "style.safetensors", 0.5)]):
        found = answer(family)

    block = family.parts["transformer"].transformer_blocks[0].attn
    for layer, part in zip((block.to_q, block.to_k, block.to_v), up.chunk(3), strict=True):
        layer.weight += 0.5 * part @ down
    expected = answer(family)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_what_diffusers_noted_of_the_scale_is_heeded(load: Callable[[str], Family], tmp_path: Path) -> None:
    """It is in the header: for all layers, and otherwise for some of them."""
    family = load("stable_diffusion")
    tensors = load_file(write_peft(tmp_path / "plain.safetensors", family, unet=("attn1.to_q", "attn1.to_k")))
    notes = {"unet.r": RANK, "unet.lora_alpha": 3 * RANK, "unet.alpha_pattern": {"attn1.to_k": 5 * RANK}}
    save_file(tensors, tmp_path / "noted.safetensors", metadata={"lora_adapter_metadata": json.dumps(notes)})
    scaled = {
        name: value * (5 if "to_k" in name else 3) if "lora_B" in name else value for name, value in tensors.items()
    }
    save_file(scaled, tmp_path / "scaled.safetensors")

    with wearing(LoraRack(), family, [(tmp_path / "noted.safetensors", 1.0)]):
        found = answer(family)
    with wearing(LoraRack(), family, [(tmp_path / "scaled.safetensors", 1.0)]):
        expected = answer(family)

    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_a_scale_by_the_root_of_the_rank_is_heeded(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Kalajdzievski 2023 (arXiv:2312.03732); it is noted, too."""
    family = load("stable_diffusion")
    tensors = load_file(write_peft(tmp_path / "plain.safetensors", family, unet=("attn1.to_q",)))
    for name, rooted in (("root", True), ("plain", False)):
        notes = {"unet.lora_alpha": 4.0, "unet.use_rslora": rooted}
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata={"lora_adapter_metadata": json.dumps(notes)})

    with wearing(LoraRack(), family, [(tmp_path / "root.safetensors", 1.0)]):
        found = answer(family)
    with wearing(LoraRack(), family, [(tmp_path / "plain.safetensors", RANK**0.5)]):
        expected = answer(family)

    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_flux_is_changed_in_its_text_encoder_too(load: Callable[[str], Family], tmp_path: Path) -> None:
    """In kohya's names; those of the transformer may lack their first word."""
    family = load("flux1")
    text, block = family.parts["text_encoder"], family.parts["transformer"].transformer_blocks[0]
    generator = torch.Generator().manual_seed(0)
    layers = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1": text.encoder.layers[0].mlp.fc1,
        "lora_unet_double_blocks_0_img_attn_proj": block.attn.to_out[0],
    }
    written: dict[str, Tensor] = {}
    for name, module in layers.items():
        down, up = factors(module, generator)
        written |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(2.0)}
    save_file(written, tmp_path / "both.safetensors")
    down, up = factors(block.attn.to_q, generator)
    bare = {"transformer_blocks.0.attn.to_q.lora_A.weight": down, "transformer_blocks.0.attn.to_q.lora_B.weight": up}
    save_file(bare, tmp_path / "bare.safetensors")

    choices = [(tmp_path / "both.safetensors", 1.0), (tmp_path / "bare.safetensors", 1.0)]
    with wearing(LoraRack(), family, choices) as worn:
        assert set(worn.marks) == {"text_encoder", "transformer"}
        found = answer(family)

    for name, module in layers.items():
        module.weight += written[f"{name}.lora_up.weight"] @ written[f"{name}.lora_down.weight"]
    block.attn.to_q.weight += up @ down
    expected = answer(family)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_original_names_may_have_alphas(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Half of the rank is half of the change."""
    family = load("flux1")
    base = "diffusion_model.double_blocks.0.img_attn.proj"
    down, up = factors(family.parts["transformer"].transformer_blocks[0].attn.to_out[0], torch.Generator())
    tensors = {f"{base}.lora_A.weight": down, f"{base}.lora_B.weight": up}
    save_file(tensors, tmp_path / "plain.safetensors")
    save_file(tensors | {f"{base}.alpha": torch.tensor(RANK / 2)}, tmp_path / "half.safetensors")

    with wearing(LoraRack(), family, [(tmp_path / "half.safetensors", 1.0)]):
        found = answer(family)
    with wearing(LoraRack(), family, [(tmp_path / "plain.safetensors", 0.5)]):
        expected = answer(family)

    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_several_loras_add_up(load: Callable[[str], Family], tmp_path: Path) -> None:
    """The order in which they are chosen does not matter but for rounding; the same one twice counts twice."""
    family = load("stable_diffusion")
    first, second = (lora_for("stable_diffusion", family, tmp_path / f"{seed}.safetensors", seed) for seed in range(2))
    rack = LoraRack()

    def with_(*choices: tuple[Path, float]) -> Tensor:
        with wearing(rack, family, choices):
            return answer(family)

    both, reverse = with_((first, 0.5), (second, 0.3)), with_((second, 0.3), (first, 0.5))
    assert (both - reverse).norm() <= 1e-5 * both.norm()
    assert (both - with_((first, 0.5))).norm() > 1e-3 * both.norm()
    twice, double = with_((first, 0.5), (first, 0.5)), with_((first, 1.0))
    assert (twice - double).norm() <= 1e-5 * double.norm()
