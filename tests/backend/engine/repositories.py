"""The repositories of the catalog as they are published, but tiny: their file names, their classes, their surplus.

What stands beside what a model needs (weights in other formats and in other precisions, pictures, single files) stands
here, too, as a few bytes that nobody may open.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from parities import tiny_unet
from parities.tiny_flux1 import build_tiny_flux1
from parities.tiny_flux2 import build_tiny_flux2
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from underpaint_backend.models.offers import Offer

VAE = {
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
"""The stages of the real ones, so that a cell has 8 px."""

CLASSES = {
    "stable-diffusion-v1-5": "StableDiffusionPipeline",
    "stable-diffusion-inpainting": "StableDiffusionInpaintPipeline",
    "stable-diffusion-xl-base-1.0": "StableDiffusionXLPipeline",
    "stable-diffusion-xl-1.0-inpainting-0.1": "StableDiffusionXLInpaintPipeline",
    "FLUX.1-schnell": "FluxPipeline",
    "FLUX.1-dev": "FluxPipeline",
    "FLUX.1-Krea-dev": "FluxPipeline",
    "FLUX.1-Fill-dev": "FluxFillPipeline",
    "FLUX.1-Kontext-dev": "FluxKontextPipeline",
    "FLUX.2-klein-4B": "Flux2KleinPipeline",
    "FLUX.2-klein-base-4B": "Flux2KleinPipeline",
    "FLUX.2-klein-9B": "Flux2KleinPipeline",
    "FLUX.2-klein-base-9B": "Flux2KleinPipeline",
    "FLUX.2-dev": "Flux2Pipeline",
}
"""What each repository's `model_index.json` names."""

SHARDS = {"transformer": 3, "text_encoder_2": 2}
"""Files into which the weights of large parts are cut."""


def build_repositories(offer: Offer, root: Path) -> None:
    """Write all repositories of an offer below `root`, in folders of their names."""
    first, *others = offer.sources
    name = first.repository.partition("/")[2]
    folder = root / name
    if name.startswith("stable-diffusion"):
        _stable_diffusion(folder, name)
    elif name.startswith("FLUX.1"):
        kind = name.removeprefix("FLUX.1-").removesuffix("-dev").lower()
        build_tiny_flux1(folder, {"fill": "fill", "kontext": "kontext", "schnell": "schnell"}.get(kind, "dev"))
        _old_clip(folder / "tokenizer")
    else:
        kind = "dev" if name.endswith("dev") else "klein base" if "base" in name else "klein"
        build_tiny_flux2(root / "tiny", kind)
        (root / "tiny").rename(folder)
    _as_published(folder, name)
    for source in others:
        if source.repository == "h94/IP-Adapter":
            _ip_adapter(folder, root / "IP-Adapter", source.files[-1])
        else:
            _redux(root)


def _stable_diffusion(folder: Path, name: str) -> None:
    torch.manual_seed(0)
    channels = 9 if "inpaint" in name else 4
    shared = {"tokenizer": tiny_unet.tokenizer(), "scheduler": tiny_unet.diffusion_scheduler()}
    pipeline: Any
    if "xl" in name:
        pipeline = StableDiffusionXLPipeline(
            **shared,
            vae=tiny_unet.vae(**VAE, scaling_factor=0.13025, force_upcast=True),
            text_encoder=CLIPTextModel(tiny_unet.clip_text(tiny_unet.WIDTH // 2)),
            text_encoder_2=CLIPTextModelWithProjection(
                tiny_unet.clip_text(tiny_unet.WIDTH // 2, hidden_act="gelu", projection_dim=tiny_unet.WIDTH)
            ),
            tokenizer_2=tiny_unet.tokenizer(pad="!"),
            unet=tiny_unet.unet_xl(channels),
        )
    else:
        pipeline = StableDiffusionPipeline(
            **shared,
            vae=tiny_unet.vae(**VAE),
            text_encoder=CLIPTextModel(tiny_unet.clip_text(tiny_unet.WIDTH)),
            unet=tiny_unet.unet(channels),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    for tokenizer in folder.glob("tokenizer*"):
        _old_clip(tokenizer)
    for weights in sorted(folder.glob("*/*.safetensors")):
        half = weights.with_name(weights.name.replace(".safetensors", ".fp16.safetensors"))
        save_file({key: value.half() for key, value in load_file(weights).items()}, half)
        for surplus in (weights, weights.with_suffix(".bin"), weights.with_name("flax_model.msgpack")):
            surplus.write_bytes(b"nobody opens this")


def _old_clip(folder: Path) -> None:
    """CLIP's tokenizer as it was written when these models came out."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    marks = {key: config[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))


def _as_published(folder: Path, name: str) -> None:
    """Weights in as many files as there are, the real list of parts, and what else lies there."""
    index = {"_class_name": CLASSES[name], "_diffusers_version": "0.30.0"}
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        config = part / "config.json"
        found = json.loads(config.read_text()) if config.is_file() else {}
        kind = found.get("_class_name") or (found.get("architectures") or ["CLIPTokenizer"])[0]
        library = "diffusers" if "_class_name" in found or part.name == "scheduler" else "transformers"
        index[part.name] = [library, kind if part.name != "scheduler" else "FlowMatchEulerDiscreteScheduler"]  # type: ignore[assignment]
        shards = 1 if name.startswith("stable-diffusion") else SHARDS.get(part.name, 1)
        if shards > 1:
            _cut(part, shards)
    if "klein" in name:
        index["is_distilled"] = "base" not in name  # type: ignore[assignment]
    if name == "stable-diffusion-v1-5":
        index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}  # type: ignore[dict-item]
        (folder / "safety_checker").mkdir()
        (folder / "safety_checker" / "model.fp16.safetensors").write_bytes(b"nobody opens this")
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "underpaint.json").unlink(missing_ok=True)
    for surplus in ("README.md", "all-in-one.safetensors", "ae.safetensors", "LICENSE.md"):
        (folder / surplus).write_bytes(b"nobody opens this")


def _cut(part: Path, count: int) -> None:
    """The weights of a part in so many files and an index."""
    (path,) = part.glob("*.safetensors")
    weights = load_file(path)
    path.unlink()
    names = [f"{path.stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    where = {key: names[place % count] for place, key in enumerate(weights)}
    for name in names:
        save_file({key: weights[key] for key in where if where[key] == name}, part / name, {"format": "pt"})
    total = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (part / f"{path.name}.index.json").write_text(json.dumps(index))


def _ip_adapter(model: Path, folder: Path, file: str) -> None:
    """Of the adapters' repository what is needed of one, and some of the rest."""
    half = model / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    plain = half.with_name("diffusion_pytorch_model.safetensors")
    surplus = plain.read_bytes()
    shutil.copy(half, plain)
    tiny_unet.add_ip_adapter(tiny_unet.described(model, "stable_diffusion"))
    plain.write_bytes(surplus)
    (model / "underpaint.json").unlink()
    (folder / file).parent.mkdir(parents=True)
    (folder / "models").mkdir(exist_ok=True)
    shutil.move(model / "ip_adapter" / "ip-adapter.safetensors", folder / file)
    shutil.move(model / "image_encoder", folder / "models" / "image_encoder")
    (model / "ip_adapter").rmdir()
    for other in ("models/ip-adapter_sd15_light.safetensors", "models/image_encoder/pytorch_model.bin"):
        (folder / other).write_bytes(b"nobody opens this")


def _redux(root: Path) -> None:
    """The repository that makes FLUX.1 [dev] see references."""
    folder = root / "FLUX.1-Redux-dev"
    build_tiny_flux1(root / "whole", "redux")
    for part in ("feature_extractor", "image_embedder", "image_encoder"):
        shutil.move(root / "whole" / part, folder / part)
    shutil.rmtree(root / "whole")
    (folder / "model_index.json").write_text('{"_class_name": "FluxPriorReduxPipeline"}')
    (folder / "flux1-redux-dev.safetensors").write_bytes(b"nobody opens this")
