"""Prompts that were read before: each job gets what its own text encoders say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import torch
from parities.tiny_flux1 import build_tiny_flux1
from torch import Tensor
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.lora import LoraRack
from underpaint_backend.engine.painting import Observer, Painting, paint_latents
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.lora_files import TEXT, wearing, write_peft
from tests.backend.engine.tiny import build_tiny

PAINTING = Painting((32, 32), "a red circle", "blue", 3.0, "ddim", 2, 1.0, (1,))


def loaded(library: Library, entry: Entry) -> LoadedModel:
    """The model of an entry."""
    return library.load(entry, lambda fraction: None, Event())


def painted(model: LoadedModel, scheduler: str = "ddim") -> Tensor:
    """The latents of the painting."""
    observer = Observer(lambda phase: None, lambda step: None)
    with torch.inference_mode():
        return paint_latents(model, replace(PAINTING, scheduler=scheduler), observer)


def test_a_prompt_is_read_anew_by_a_text_encoder_with_a_lora(tmp_path: Path) -> None:
    """With a LoRA for the text encoder alone, and then without it, the same prompt says something else each time."""
    model = loaded(Library(open_device("cpu")), build_tiny(tmp_path / "tiny", 4))
    lora = write_peft(tmp_path / "style.safetensors", model.family, text_encoder=TEXT)
    plain = painted(model)

    with wearing(LoraRack(), model.family, [(lora, 1.0)]):
        styled = painted(model)

    assert not torch.allclose(styled, plain, rtol=1e-3, atol=1e-3)
    assert torch.equal(painted(model), plain)


def test_schnell_and_dev_share_text_encoders_and_no_embedding(tmp_path: Path) -> None:
    """T5 is given 256 tokens by the one and 512 by the other; each paints as it does where the other is not."""
    entries = {variant: build_tiny_flux1(tmp_path / variant, variant) for variant in ("schnell", "dev")}
    for part in ("text_encoder", "text_encoder_2"):
        for weights in (entries["dev"].folder / part).glob("*.safetensors"):
            weights.unlink()
            weights.symlink_to(entries["schnell"].folder / part / weights.name)
    alone = {name: painted(loaded(Library(open_device("cpu")), entry), "euler") for name, entry in entries.items()}

    library = Library(open_device("cpu"))
    schnell, dev = (loaded(library, entry) for entry in entries.values())
    assert schnell.family.parts["text_encoder_2"] is dev.family.parts["text_encoder_2"]
    for name, model in (("schnell", schnell), ("dev", dev), ("schnell", schnell)):
        assert torch.equal(painted(model, "euler"), alone[name])
