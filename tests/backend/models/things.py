"""A small model's repository and the offer of it, and the offers of the catalog."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from underpaint_backend.models.download import Download, Patience
from underpaint_backend.models.hub import Settings
from underpaint_backend.models.offers import CATALOG, Offer, Source, offer_of, read_offers
from underpaint_backend.models.store import Store

from tests.backend.models.hub import Repository, StandIn

REPOSITORY = "artist/brush"
PATIENCE = Patience(tries=3, first=0.01, longest=1.0)
BIG = 3 << 20
"""Bytes of the file that is cut."""


def weights(seed: int, size: int = 20_000) -> bytes:
    return random.Random(seed).randbytes(size)


def model_index(*parts: str, pipeline: str = "StableDiffusionPipeline") -> bytes:
    named = {part: ["diffusers", "Thing"] for part in parts}
    return json.dumps({"_class_name": pipeline, **named}).encode()


def any_index(*parts: str) -> bytes:
    """The index of a pipeline that may have any parts."""
    return model_index(*parts, pipeline="BrushPipeline")


def brush(**changes: Any) -> Repository:
    """A repository as painters publish theirs, with what nobody needs in it, too."""
    files = {
        "README.md": b"read me",
        "model_index.json": model_index("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
        "scheduler/scheduler_config.json": b"{}",
        "text_encoder/config.json": b'{"text": 1}',
        "text_encoder/model.safetensors": weights(6, 10),
        "tokenizer/vocab.json": b'{"a": 0}',
        "tokenizer/merges.txt": b"#version",
        "unet/config.json": b'{"unet": 1}',
        "unet/diffusion_pytorch_model.bin": weights(1),
        "unet/diffusion_pytorch_model.safetensors": weights(2, 2 * BIG),
        "unet/diffusion_pytorch_model.fp16.safetensors": weights(3, BIG),
        "vae/config.json": b'{"vae": 1}',
        "vae/diffusion_pytorch_model.safetensors": weights(4),
        "brush.safetensors": weights(5),
    }
    return Repository(files, **changes)


WANTED = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}
UNET = "unet/diffusion_pytorch_model.fp16.safetensors"

TABLE: dict[str, Any] = {
    "id": "brush:small",
    "name": "Brush",
    "family": "stable_diffusion",
    "tasks": ["text_to_image"],
    "native_area": 262144,
    "size_multiple": 8,
    "default_steps": 20,
    "default_guidance": 5.0,
    "default_scheduler": "ddim",
    "licence": "MIT",
    "download": 3_200_000,
    "repository": REPOSITORY,
    "variant": "fp16",
    "files": ["model_index.json", "scheduler/*", "text_encoder/*", "tokenizer/*", "unet/*", "vae/*"],
}


def offer(**changes: Any) -> Offer:
    return offer_of({**TABLE, **changes})


def offer_of_only(*files: str) -> Offer:
    """An offer of the brush's repository of which no more is wanted, whatever its family needs."""
    return replace(offer(), sources=(Source(REPOSITORY, files, variant="fp16"),))


def known() -> dict[str, Offer]:
    """What the catalog offers, by id."""
    return {offer.model.id: offer for offer in read_offers(CATALOG)}


def download(hub: StandIn, root: Path, given: Offer | None = None, **options: Any) -> Download:
    """A download from the stand-in into the cache `root`; a token and offline are options."""
    token, offline = options.pop("token", None), options.pop("offline", False)
    settings = Settings(options.pop("endpoint", hub.url), token, offline)
    return Download(given or offer(), Store(root), settings, **{"patience": PATIENCE, **options})
