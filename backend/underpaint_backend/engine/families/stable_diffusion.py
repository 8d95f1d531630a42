"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022, arXiv:2112.10752), for text to image and for inpainting.

A UNet with 4 input channels knows no masks. One with 9 was trained to fill them: 4 channels of noisy latents, the
mask, and 4 channels of the picture with the masked part blanked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ..denoise import Predict
from ..exceptions import BadFiles
from ..parts import Network
from ..schedulers import Schedule
from . import Conditions, Embedding, Family


class StableDiffusion(Family):
    """A Stable Diffusion model. The VAE always calculates in float32: in half precision, some pictures overflow it."""

    NETWORKS: ClassVar[Mapping[str, Network]] = {
        "text_encoder": Network(CLIPTextModel),
        "vae": Network(AutoencoderKL, "float32"),
        "unet": Network(UNet2DConditionModel),
    }

    def check(self) -> None:
        channels = self.parts.config("unet").get("in_channels")
        if channels not in (4, 9):
            raise BadFiles(f"its UNet has {channels} input channels, not 4 or 9")
        self.scheduler_config = self.parts.config("scheduler")
        _ = self.tokenizer

    @property
    def tokenizer(self) -> Any:
        return self.parts.tokenizer("tokenizer", CLIPTokenizer)

    @property
    def unet(self) -> Any:
        return self.parts["unet"]

    @property
    def vae(self) -> Any:
        return self.parts["vae"]

    @property
    def text_encoder(self) -> Any:
        return self.parts["text_encoder"]

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


FAMILY = StableDiffusion
