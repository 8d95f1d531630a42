"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022, arXiv:2112.10752), for text to image and for inpainting.

A UNet with 4 input channels knows no masks. One with 9 was trained to fill them: 4 channels of noisy latents, the
mask, and 4 channels of the picture with the masked part blanked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from ..denoise import Predict
from ..device import Device, is_out_of_memory
from ..exceptions import BadFiles
from ..schedulers import Schedule
from . import Conditions, Embedding, Family

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""Endings of weights that are programs as much as numbers; none is ever opened."""


@dataclass(frozen=True)
class StableDiffusion(Family):
    """A Stable Diffusion model. The VAE always calculates in float32: in half precision, some pictures overflow it."""

    device: Device
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, device: Device, on_part: Callable[[float], None]) -> StableDiffusion:
        try:
            on_part(0.0)
            scheduler_config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            on_part(0.05)
            text_encoder = _network(CLIPTextModel, folder / "text_encoder", device, device.dtype)
            on_part(0.2)
            vae = _network(AutoencoderKL, folder / "vae", device, torch.float32)
            on_part(0.3)
            unet = _network(UNet2DConditionModel, folder / "unet", device, device.dtype)
        except Exception as error:  # whatever damaged files make the libraries raise
            if is_out_of_memory(error):
                raise
            words = str(error).replace(str(folder), folder.name).splitlines() or [""]
            raise BadFiles(f"{type(error).__name__}: {words[0]}") from error
        if unet.config.in_channels not in (4, 9):
            raise BadFiles(f"its UNet has {unet.config.in_channels} input channels, not 4 or 9")
        return cls(device, unet, vae, text_encoder, tokenizer, scheduler_config)

    @property
    def latent_channels(self) -> int:
        channels: int = self.vae.config.latent_channels
        return channels

    @property
    def latent_scale(self) -> int:
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def takes_mask(self) -> bool:
        return bool(self.unet.config.in_channels == 9)

    @property
    def networks(self) -> Sequence[nn.Module]:
        return self.text_encoder, self.vae, self.unet

    def encode_prompt(self, text: str) -> Embedding:
        """The embedding [1, T, D] of a prompt, cut at as many tokens as CLIP takes."""
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        attended = None
        if getattr(self.text_encoder.config, "use_attention_mask", False):
            attended = tokens.attention_mask.to(self.device.torch_device)
        return (self.text_encoder(tokens.input_ids.to(self.device.torch_device), attention_mask=attended)[0],)

    def encode(self, pictures: Tensor) -> Tensor:
        latents: Tensor = self.vae.encode(pictures).latent_dist.mode() * self.vae.config.scaling_factor
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        pictures: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        return pictures

    def schedule(self, name: str, steps: int, strength: float, size: tuple[int, int]) -> Schedule:
        return Schedule.of(name, self.scheduler_config, steps, strength)

    def predictor(self, conditions: Conditions, batch: int) -> Predict:
        guided = conditions.negative_prompt is not None
        prompts = (*(conditions.negative_prompt or ()), *conditions.prompt)
        text = torch.cat([prompt.expand(batch, -1, -1) for prompt in prompts])
        region = None
        if conditions.region is not None:
            region = torch.cat([conditions.region.mask, conditions.region.latents], dim=1).expand(len(text), -1, -1, -1)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            seen = torch.cat([latents] * 2) if guided else latents
            if region is not None:
                seen = torch.cat([seen, region], dim=1)
            output = self.unet(seen.to(text.dtype), timestep, encoder_hidden_states=text, return_dict=False)[0]
            answer: Tensor = output.float()
            if not guided:
                return answer
            without, wanted = answer.chunk(2)
            return without + conditions.guidance * (wanted - without)

        return predict


def _network(cls: Any, folder: Path, device: Device, dtype: torch.dtype) -> Any:
    """The network in `folder`, from safetensors only, in the variant that lies there.

    Raises `ValueError` if there are no weights, or not all of them; and whatever the libraries raise for damaged files.
    """
    weights = [path.name for path in folder.glob("*.safetensors")]
    if not weights:
        raise ValueError(_what_is_there_instead(folder))
    variant = "fp16" if all(re.search(r"\.fp16[.-]", name) for name in weights) else None
    where = {"variant": variant, "use_safetensors": True, "local_files_only": True}
    network, report = cls.from_pretrained(folder, dtype=dtype, output_loading_info=True, **where)
    missing = [key for key in report["missing_keys"] if not key.endswith("position_ids")]
    if missing:
        raise ValueError(f"{folder.name} lacks {len(missing)} weights, such as {sorted(missing)[0]}")
    return network.eval().requires_grad_(False).to(device.torch_device)


def _what_is_there_instead(folder: Path) -> str:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if not pickles:
        return f"{folder.name} has no safetensors"
    return (
        f"{folder.name}/{pickles[0]} is of a kind that can run any program when it is opened. Convert it on a machine "
        "where that does no harm, with diffusers' save_pretrained(folder, safe_serialization=True)"
    )


FAMILY = StableDiffusion
