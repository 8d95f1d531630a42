"""What is wrong inside a LoRA, its notes and its numbers: refused by its own name, soon, and the model works on."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from underpaint_backend.engine.exceptions import ModelBroken
from underpaint_backend.engine.families import Family
from underpaint_backend.engine.lora import LoraRack

from tests.backend.engine.lora_files import answer, wearing, write_kohya, write_peft

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def noted(family: Family, path: Path, notes: object) -> Path:
    """A LoRA with notes as diffusers leaves them in a file."""
    tensors = load_file(write_peft(path, family, unet=("attn1.to_q",)))
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(notes)})
    return path


def refused(family: Family, path: Path, words: str) -> None:
    """The LoRA is refused in these words, by its name, within a moment; the model says what it said before."""
    plain = answer(family)
    rack, begun = LoraRack(), time.monotonic()

    with pytest.raises(ModelBroken, match=words) as caught, wearing(rack, family, [(path, 1.0)]):
        pass

    assert time.monotonic() - begun < 5
    assert f"“{path.stem}”" in caught.value.info.message
    assert rack.bytes == 0
    assert torch.equal(answer(family), plain)


@pytest.mark.parametrize(
    "notes",
    [
        {"unet.alpha_pattern": {"(": 1}},
        {"unet.alpha_pattern": {"([a-z0-9_.]+)+!": 1}},
        {"unet.alpha_pattern": {"attn1|attn2": 1}},
        {"unet.alpha_pattern": {"": 1}},
        {"unet.alpha_pattern": ["to_q"]},
        {"unet.alpha_pattern": {"to_q": "loud"}},
        {"unet.lora_alpha": {}},
        {"unet.lora_alpha": 10**400},
        ["unet.lora_alpha"],
    ],
    ids=str,
)
def test_notes_that_nobody_leaves_are_refused(load: Callable[[str], Family], tmp_path: Path, notes: object) -> None:
    """A layer is named and not searched for: no pattern of a stranger is ever run."""
    family = load("stable_diffusion")

    refused(family, noted(family, tmp_path / "style.safetensors", notes), "a form that is not known")


def test_notes_that_are_nested_too_deeply_are_refused(load: Callable[[str], Family], tmp_path: Path) -> None:
    """They would exhaust the stack of whoever reads them."""
    family = load("stable_diffusion")
    path = write_peft(tmp_path / "style.safetensors", family, unet=("attn1.to_q",))
    save_file(load_file(path), path, metadata={"lora_adapter_metadata": "[" * 200_000})

    refused(family, path, "a form that is not known")


@pytest.mark.parametrize("alpha", ["nan", "inf", 1e308, float("nan")])
def test_an_alpha_that_is_no_number_is_refused(load: Callable[[str], Family], tmp_path: Path, alpha: object) -> None:
    """Whichever way it is noted: else the model's answer would be none, and the model be blamed."""
    family = load("stable_diffusion")

    refused(family, noted(family, tmp_path / "style.safetensors", {"unet.lora_alpha": alpha}), "no numbers")
    of_layer = {"unet.alpha_pattern": {LAYER: alpha}}
    refused(family, noted(family, tmp_path / "other.safetensors", of_layer), "no numbers")


def test_an_alpha_in_a_tensor_that_is_no_number_is_refused(load: Callable[[str], Family], tmp_path: Path) -> None:
    """As kohya's trainer writes it."""
    family = load("stable_diffusion")
    path = write_kohya(tmp_path / "style.safetensors", family, alpha=float("inf"), unet=("attn1.to_q",))

    refused(family, path, "no numbers")


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        (LAYER, True),
        (f"^{LAYER}", True),
        (f"^{LAYER}$", True),
        ("attn1.to_q", True),
        (r"attn1\.to_q$", True),
        ("^attn1.to_q", False),
        ("n1.to_q", False),
        ("attn1", False),
    ],
)
def test_an_alpha_is_of_the_layers_whose_names_end_so(
    load: Callable[[str], Family], tmp_path: Path, pattern: str, matches: bool
) -> None:
    """With ^ it is the whole name; a dot is a dot. That is what peft makes of names that diffusers writes."""
    assert matches == bool(re.match(rf"(.*\.)?({pattern})$", LAYER))
    family = load("stable_diffusion")
    path = noted(family, tmp_path / "style.safetensors", {"unet.alpha_pattern": {pattern: 6.0}})
    plain = write_peft(tmp_path / "plain.safetensors", family, unet=("attn1.to_q",))

    with wearing(LoraRack(), family, [(path, 1.0)]) as worn:
        ((lora, _),) = worn.loras
        scale = lora.changes["unet"][LAYER].scale
    with wearing(LoraRack(), family, [(plain, 1.0)]) as worn:
        ((lora, _),) = worn.loras
        assert lora.changes["unet"][LAYER].scale == 1

    assert scale == (3 if matches else 1)


def without_rank(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Factors that meet in nothing."""
    return {
        name: value[:0] if "lora_A" in name or "lora_down" in name else value[:, :0] if value.dim() else value
        for name, value in tensors.items()
    }


def spoilt(value: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """One number of the last tensor is `value`."""

    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        last = max(name for name in tensors if tensors[name].dim())
        tensors[last].view(-1)[-1] = value
        return tensors

    return spoil


@pytest.mark.parametrize("damage", [without_rank, spoilt(float("nan")), spoilt(float("-inf"))])
@pytest.mark.parametrize("write", [write_peft, write_kohya])
def test_factors_that_are_no_numbers_are_refused(
    load: Callable[[str], Family],
    tmp_path: Path,
    damage: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    write: Callable[..., Path],
) -> None:
    """Those that are none at all, and those that are not finite; with an alpha and without one."""
    family = load("stable_diffusion")
    path = write(tmp_path / "style.safetensors", family, unet=("attn1.to_q",))
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    save_file(damage(tensors), path)

    refused(family, path, "no numbers")


def test_a_block_that_no_model_has_is_refused(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Converters count up to its number."""
    family = load("flux2")
    tensors = {}
    for layer in ("double_stream_modulation_img.lin", "single_blocks.0.linear2", f"single_blocks.{10**18}.linear2"):
        name = f"diffusion_model.{layer}"
        tensors |= {f"{name}.lora_A.weight": torch.zeros(2, 128), f"{name}.lora_B.weight": torch.zeros(32, 2)}
    path = tmp_path / "style.safetensors"
    save_file(tensors, path)

    refused(family, path, "a form that is not known")
