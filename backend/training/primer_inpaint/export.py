"""Write the trained model as a folder that any diffusers program can load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionInpaintPipeline
from transformers import CLIPTokenizer

from .latents import finished_autoencoder
from .samples import SIZE
from .unet import trained_denoiser

DESCRIPTION: dict[str, Any] = {
    "id": "primer-inpaint",
    "name": "Primer (built in)",
    "family": "stable_diffusion",
    "tasks": ["inpaint", "text_to_image"],
    "native_area": SIZE * SIZE,
    "size_multiple": 8,
    "default_steps": 12,
    "default_guidance": 5.0,
    "default_scheduler": "ddim",
    "licence": "MIT",
}
"""What Underpaint's model catalogue reads: sizes in px, `native_area` in px²."""


def load_pipeline(folder: Path) -> StableDiffusionInpaintPipeline:
    """The pipeline in single precision, of the checkpoints in the build folder."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    denoiser = trained_denoiser(folder, tokenizer)
    return StableDiffusionInpaintPipeline(
        vae=finished_autoencoder(folder),
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=denoiser.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _set_dtype(config: Path, dtype: str) -> None:
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"dtype": dtype}, indent=2) + "\n")


def export(folder: Path, target: Path) -> int:
    """Write the model in half precision to `target`, keeping its README.md; returns its bytes."""
    pipeline = load_pipeline(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.rmtree(target / name, ignore_errors=True)
    pipeline.unet.half()
    pipeline.vae.half()
    pipeline.text_encoder.half()
    # Stored in half precision, but meant to be loaded in single: transformers would otherwise
    # keep the text encoder in half precision beside a denoiser in single.
    pipeline.save_pretrained(target, safe_serialization=True)
    _set_dtype(target / "text_encoder" / "config.json", "float32")
    (target / "underpaint.json").write_text(json.dumps(DESCRIPTION, indent=2) + "\n")
    for weights in target.glob("*/*.safetensors"):
        weights.chmod(0o644)  # they are written for their owner alone
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
