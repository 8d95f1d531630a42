"""Models in one file of the original layout, and folders that lack their weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from underpaint_backend.engine.single_file import SingleFileSource

from tests.backend.models import original


def weights_in(folder: Path) -> dict[str, Tensor]:
    """All weights of a part in diffusers' layout."""
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def config_in(folder: Path) -> dict[str, Any]:
    """Its configuration."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def original_sd(folder: Path) -> dict[str, Tensor]:
    """The model in `folder` as one file of the original layout."""
    written = original.unet(weights_in(folder / "unet"), config_in(folder / "unet"))
    written |= original.vae(weights_in(folder / "vae"), config_in(folder / "vae"))
    if (folder / "text_encoder_2").is_dir():
        text = {name.removeprefix("text_model."): value for name, value in weights_in(folder / "text_encoder").items()}
        written |= original.clip(text, "conditioner.embedders.0.transformer.")
        return written | original.open_clip(weights_in(folder / "text_encoder_2"))
    text = {name.removeprefix("text_model."): value for name, value in weights_in(folder / "text_encoder").items()}
    return written | original.clip(text)


def without_weights(folder: Path, to: Path) -> Path:
    """A copy of the folder as packs are: configurations and tokenizers."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors"))
    return to


class FolderOnly(SingleFileSource):
    """A source that takes configurations from its folder alone, as for a FLUX.1 of another depth than the real ones."""

    @property
    def _places(self) -> tuple[Path, ...]:  # type: ignore[override]
        return (self.folder,)
