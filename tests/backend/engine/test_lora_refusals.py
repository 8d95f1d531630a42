"""LoRAs for other models and damaged files: refused in words, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from parities.tiny_flux1 import build_tiny_flux1
from safetensors.torch import load_file, save_file
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import ModelBroken, WrongLora
from underpaint_backend.engine.families import Family, family_class
from underpaint_backend.engine.lora import LoraRack
from underpaint_backend.engine.sources import FolderSource

from tests.backend.engine.lora_files import (
    RANK,
    answer,
    lora_for,
    wearing,
    write_peft,
)


@pytest.mark.parametrize(
    ("model", "made_for", "words"),
    [
        ("stable_diffusion", "stable_diffusion_xl", "made for SDXL, not for Tiny"),
        ("stable_diffusion", "flux1", "made for FLUX.1, not for Tiny"),
        ("stable_diffusion_xl", "stable_diffusion", "made for Stable Diffusion 1.5, not for Tiny"),
        ("flux1", "flux2", "made for FLUX.2, not for Tiny"),
        ("flux2", "flux1", "made for FLUX.1, not for Tiny"),
    ],
)
def test_a_lora_of_another_family_is_refused(
    load: Callable[[str], Family], tmp_path: Path, model: str, made_for: str, words: str
) -> None:
    """With both names, and before anything is done; the model works on."""
    path = lora_for(made_for, load(made_for), tmp_path / "style.safetensors")
    family = load(model)
    plain = answer(family)
    rack = LoraRack()

    with pytest.raises(WrongLora) as caught, wearing(rack, family, [(path, 1.0)]):
        pass

    assert caught.value.info.code == "wrong_lora"
    assert "“style”" in caught.value.info.message
    assert words in caught.value.info.message
    assert rack.bytes == 0
    assert torch.equal(answer(family), plain)


HALVES = ("lora_A", "lora_B")


def test_a_lora_of_an_unknown_family_is_refused_by_name(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Of what was seen."""
    tensors = {f"transformer.joint_blocks.0.attn.qkv.{half}.weight": torch.zeros(2, 2) for half in HALVES}
    save_file(tensors, tmp_path / "style.safetensors")
    family = load("stable_diffusion")

    choices = [(tmp_path / "style.safetensors", 1.0)]
    with pytest.raises(WrongLora, match="made for Stable Diffusion 3, not for Tiny"):
        wearing(LoraRack(), family, choices).__enter__()


def test_a_lora_of_another_size_is_refused(load: Callable[[str], Family], tmp_path: Path) -> None:
    """The family is right, and the layers are not."""
    family = load("stable_diffusion")
    path = write_peft(tmp_path / "style.safetensors", family, unet=("attn1.to_q",))
    tensors = load_file(path)
    save_file({name: value.repeat(2, 2) for name, value in tensors.items()}, tmp_path / "wide.safetensors")
    at_embedding = {f"text_encoder.embeddings.token_embedding.{half}.weight": torch.zeros(2, 2) for half in HALVES}
    save_file(at_embedding, tmp_path / "words.safetensors")
    deep = {name.replace("down_blocks.0", "down_blocks.7"): value for name, value in tensors.items()}
    save_file(deep, tmp_path / "deep.safetensors")
    plain = answer(family)

    for name, words in {"wide": "another size of", "deep": "another kind of", "words": "another size of"}.items():
        choices = [(path, 1.0), (tmp_path / f"{name}.safetensors", 1.0)]
        with pytest.raises(WrongLora, match=words), wearing(LoraRack(), family, choices):
            pass
        assert torch.equal(answer(family), plain)


def cut(path: Path) -> None:
    """Half of it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled(path: Path) -> None:
    """What could run anything."""
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    torch.save(tensors, path)


def gone(path: Path) -> None:
    """Nothing."""
    path.unlink()


def halved(path: Path) -> None:
    """Only the half of it that reduces."""
    tensors = {name: value.clone() for name, value in load_file(path).items() if "lora_A" in name}
    save_file(tensors, path)


def overfull(path: Path) -> None:
    """With something that no LoRA has."""
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    save_file(tensors | {"unet.conv_in.weight": torch.zeros(2, 2)}, path)


def no_lora(path: Path) -> None:
    """A whole UNet."""
    save_file({"conv_in.weight": torch.zeros(32, 4, 3, 3), NAME: torch.zeros(8, 768)}, path)


NAME = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cut off"),
        (pickled, "pickle"),
        (gone, "No such file"),
        (halved, "a form that is not known"),
        (overfull, "a form that is not known"),
        (no_lora, "it is no LoRA but Stable Diffusion 1.5"),
    ],
)
def test_bad_files_say_so(
    load: Callable[[str], Family], tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    """In the words of the table, with the name of the LoRA and not with its path."""
    family = load("stable_diffusion")
    path = write_peft(tmp_path / "style.safetensors", family, unet=("attn1.to_q",))
    damage(path)

    with pytest.raises(ModelBroken, match=words) as caught, wearing(LoraRack(), family, [(path, 1.0)]):
        pass
    assert "“style”" in caught.value.info.message
    assert str(tmp_path) not in caught.value.info.message


def test_a_lora_of_dev_suits_its_sisters(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """[schnell] has no layer for guidance and [Fill] has wider tokens: what they have is changed."""
    generator = torch.Generator().manual_seed(0)
    written = {}
    layers = {
        "x_embedder": (32, 64),
        "time_text_embed.guidance_embedder.linear_1": (32, 256),
        "transformer_blocks.0.attn.to_q": (32, 32),
    }
    for name, (out, entering) in layers.items():
        written[f"transformer.{name}.lora_A.weight"] = torch.randn(RANK, entering, generator=generator)
        written[f"transformer.{name}.lora_B.weight"] = torch.randn(out, RANK, generator=generator)
    save_file(written, tmp_path / "style.safetensors")

    for variant in ("schnell", "fill"):
        folder = build_tiny_flux1(tmp_path / variant, variant).folder
        family = family_class("flux1").load(FolderSource(folder), open_device("cpu"), lambda done: None)
        network: FluxTransformer2DModel = family.parts["transformer"]
        tokens = torch.randn(1, 3, network.config.in_channels, generator=generator)
        with torch.inference_mode():
            plain = network.x_embedder(tokens)
            with wearing(LoraRack(), family, [(tmp_path / "style.safetensors", 1.0)]):
                changed = network.x_embedder(tokens)
        down = written["transformer.x_embedder.lora_A.weight"]
        expected = plain + tokens[..., :64] @ down.T @ written["transformer.x_embedder.lora_B.weight"].T
        torch.testing.assert_close(changed, expected)
