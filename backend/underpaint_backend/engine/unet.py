"""What the UNet models share, Stable Diffusion 1.x and 2.x and SDXL: latents, masks, guidance and references.

A UNet with 4 input channels knows no masks. One with 9 was trained to fill them: 4 channels of noisy latents, the
mask, and 4 channels of the picture with the masked part blanked.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from .configurations import clip_tokenizer, refuse_odd_latents, refuse_odd_levels, refuse_odd_prediction
from .denoise import Predict
from .exceptions import BadFiles
from .families import Conditions, Embedding, Family
from .ip_adapter import IPAdapter, wear
from .parts import Network
from .schedulers import Schedule


class LatentUNet(Family):
    """A model whose UNet denoises the latents of a VAE, told by CLIP what to paint.

    The VAE always calculates in float32: in half precision, some pictures overflow it.
    """

    NETWORKS: ClassVar[Mapping[str, Network]] = {
        "text_encoder": Network(CLIPTextModel),
        "vae": Network(AutoencoderKL, "float32"),
        "unet": Network(UNet2DConditionModel),
        "image_encoder": Network(CLIPVisionModelWithProjection, optional=True),
        "ip_adapter": Network(IPAdapter, optional=True),
    }

    def check(self) -> None:
        refuse_odd_latents(self.parts.config("vae"))
        _ = self.latent_scale
        channels, latent = self.parts.config("unet").get("in_channels"), self.latent_channels
        if channels not in (latent, self._channels_to_fill):
            raise BadFiles(f"its UNet has {channels} input channels, not {latent} or {self._channels_to_fill}")
        if self.ip_adapter is not None:
            self.ip_adapter.check(self.parts.config("image_encoder"), self.parts.config("unet"))
        self.scheduler_config = self.parts.config("scheduler")
        refuse_odd_levels(self.scheduler_config)
        refuse_odd_prediction(self.scheduler_config)
        _ = self.schedule("euler", 2, 1.0, (512, 512))
        _ = self.tokenizer

    @property
    def tokenizer(self) -> Any:
        return clip_tokenizer(self.parts, "tokenizer", "text_encoder")

    @property
    def unet(self) -> Any:
        unet = self.parts["unet"]
        wear(unet, self.ip_adapter)
        return unet

    @property
    def vae(self) -> Any:
        return self.parts["vae"]

    @property
    def ip_adapter(self) -> IPAdapter | None:
        """What makes the UNet see references, where the model has it."""
        adapter: IPAdapter | None = self.parts["ip_adapter"] if self.parts.has("ip_adapter") else None
        return adapter

    @property
    def latent_channels(self) -> int:
        return int(self.parts.config("vae").get("latent_channels", 4))

    @property
    def latent_scale(self) -> int:
        return int(2 ** (len(self.parts.config("vae")["block_out_channels"]) - 1))

    @property
    def takes_mask(self) -> bool:
        return bool(self.parts.config("unet")["in_channels"] == self._channels_to_fill)

    @property
    def _channels_to_fill(self) -> int:
        """Input channels of a UNet that was trained to fill masks: the latents, the mask, and the blanked picture."""
        return 2 * self.latent_channels + 1

    def tokens(self, text: str, tokenizer: Any) -> Any:
        """A prompt's tokens [1, T], cut at as many as CLIP takes, and its attention mask, on the device."""
        length = tokenizer.model_max_length
        cut = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return cut.to(self.device.torch_device)

    def left_out(self, prompt: str) -> str:
        found = self.tokenizer(prompt, return_offsets_mapping=True, verbose=False).offset_mapping
        words = [start for start, end in found if end > start]
        taken = self.tokenizer.model_max_length - 2  # one says where the prompt begins, one where it ends
        return prompt[words[taken] :] if len(words) > taken else ""

    def encode(self, pictures: Tensor) -> Tensor:
        latents: Tensor = self.vae.encode(pictures).latent_dist.mode() * self.vae.config.scaling_factor
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        pictures: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        return pictures

    @property
    def takes_references(self) -> bool:
        return self.ip_adapter is not None

    def encode_reference(self, picture: Tensor) -> Embedding:
        """What the image encoder sees in the picture, and what stands for no picture."""
        if self.ip_adapter is None:
            return super().encode_reference(picture)
        return self.ip_adapter.seen(self.parts["image_encoder"], picture)

    def schedule(self, name: str, steps: int, strength: float, size: tuple[int, int]) -> Schedule:
        return Schedule.of(name, self.scheduler_config, steps, strength)

    @abstractmethod
    def added(self, rest: list[Tensor], size: tuple[int, int]) -> dict[str, Tensor] | None:
        """What the UNet is told besides the text [B, T, D]: of the `rest` of the embeddings, each [B, ...], and of
        the size (width, height) of the picture in pixels."""

    def predictor(self, conditions: Conditions, batch: int) -> Predict:
        guided = conditions.negative_prompt is not None
        prompts = (conditions.negative_prompt or (), conditions.prompt) if guided else (conditions.prompt,)
        text, *rest = (torch.cat([_repeated(part, batch) for part in parts]) for parts in zip(*prompts, strict=True))
        told = text if self.ip_adapter is None else (text, self._shown(conditions, guided, batch))
        added = self.added(rest, conditions.size)
        region = None
        if conditions.region is not None:
            region = _repeated(torch.cat([conditions.region.mask, conditions.region.latents], dim=1), len(text))

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            seen = torch.cat([latents] * 2) if guided else latents
            if region is not None:
                seen = torch.cat([seen, region], dim=1)
            options = {"encoder_hidden_states": told, "added_cond_kwargs": added, "return_dict": False}
            answer: Tensor = self.unet(seen.to(text.dtype), timestep, **options)[0].float()
            if not guided:
                return answer
            without, wanted = answer.chunk(2)
            return without + conditions.guidance * (wanted - without)

        return predict

    def _shown(self, conditions: Conditions, guided: bool, batch: int) -> list[Tensor]:
        """The tokens of all references, and, where the model is `guided`, before them those of none."""
        if self.ip_adapter is None or not conditions.references:
            return []
        seen, nothing = (torch.stack(parts, dim=1) for parts in zip(*conditions.references, strict=True))
        both = [nothing, seen] if guided else [nothing if conditions.negative else seen]
        return [self.ip_adapter.tokens(torch.cat([_repeated(part, batch) for part in both]))]


def _repeated(tensor: Tensor, batch: int) -> Tensor:
    return tensor.expand(batch, *tensor.shape[1:])
