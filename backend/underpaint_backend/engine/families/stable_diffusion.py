"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022, arXiv:2112.10752), for text to image and for inpainting."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..exceptions import BadFiles
from ..unet import LatentUNet
from . import Embedding


class StableDiffusion(LatentUNet):
    """A Stable Diffusion model, told by one text encoder."""

    def check(self) -> None:
        super().check()
        if self.parts.config("unet").get("addition_embed_type") is not None:
            raise BadFiles("its UNet wants to be told more than a prompt: it is no Stable Diffusion 1 or 2")

    @property
    def text_encoder(self) -> Any:
        return self.parts["text_encoder"]

    def encode_prompt(self, text: str) -> Embedding:
        """The embedding [1, T, D] of a prompt, cut at as many tokens as CLIP takes."""
        tokens = self.tokens(text, self.tokenizer)
        attended = tokens.attention_mask if getattr(self.text_encoder.config, "use_attention_mask", False) else None
        return (self.text_encoder(tokens.input_ids, attention_mask=attended)[0],)

    def added(self, rest: list[Tensor], size: tuple[int, int]) -> None:
        return None


FAMILY = StableDiffusion
