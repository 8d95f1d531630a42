"""Tests of the built-in model as it ships."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image, ImageDraw
from primer_inpaint.colours import nearest
from underpaint_backend import models

FOLDER = Path(models.__file__).parent / "primer_inpaint"
LIMIT = 16_000_000
"""Bytes that the model may take in the repository."""


@cache
def _pipeline() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableDiffusionInpaintPipeline.from_pretrained(FOLDER, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _paint(prompt: str, image: Image.Image, mask: Image.Image) -> Image.Image:
    description = json.loads((FOLDER / "underpaint.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = _pipeline()(
            prompt,
            image=image,
            mask_image=mask,
            height=128,
            width=128,
            num_inference_steps=description["default_steps"],
            guidance_scale=description["default_guidance"],
            generator=torch.Generator().manual_seed(11),
        )
    picture: Image.Image = result.images[0]
    return picture


def test_size() -> None:
    """All files of the model together stay within the limit."""
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= LIMIT


def test_safetensors_only() -> None:
    """The folder holds text and safetensors: nothing that could run code when it is opened."""
    assert {path.suffix for path in FOLDER.rglob("*") if path.is_file()} == {".json", ".safetensors", ".md"}


def test_description() -> None:
    """`underpaint.json` says what the daemon has to know, and nothing else."""
    description = json.loads((FOLDER / "underpaint.json").read_text())
    assert set(description) == {
        "id",
        "name",
        "family",
        "tasks",
        "native_area",
        "size_multiple",
        "default_steps",
        "default_guidance",
        "default_scheduler",
        "licence",
    }
    assert description["id"] == "primer-inpaint"
    assert description["native_area"] == 128 * 128


@pytest.mark.parametrize("colour", ["red", "blue", "yellow", "green"])
def test_paints_the_colour(colour: str) -> None:
    """A circle asked for in the middle of a gray picture has the colour that was asked for."""
    mask = Image.new("L", (128, 128))
    ImageDraw.Draw(mask).ellipse((24, 24, 104, 104), fill=255)
    picture = _paint(f"a {colour} circle", Image.new("RGB", (128, 128), (128, 128, 128)), mask)
    centre = np.asarray(picture)[52:76, 52:76].reshape(-1, 3)
    assert nearest(np.median(centre, axis=0)) == colour


def test_paints_without_a_picture() -> None:
    """With everything selected it makes a whole picture: text to image."""
    picture = _paint(
        "a red circle on a white background",
        Image.new("RGB", (128, 128)),
        Image.new("L", (128, 128), 255),
    )
    assert nearest(np.asarray(picture)[2:10, 2:10].reshape(-1, 3).mean(0)) == "white"
