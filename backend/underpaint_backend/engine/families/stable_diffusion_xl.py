"""SDXL (Podell et al. 2023, arXiv:2307.01952), for text to image and for inpainting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from ..configurations import clip_tokenizer
from ..exceptions import BadFiles
from ..parts import Network
from ..unet import LatentUNet
from . import Embedding


class StableDiffusionXL(LatentUNet):
    """An SDXL model, told by two text encoders, and by the size that a picture had before it was cut.

    Here that is always the size of the picture itself, uncut.
    """

    NETWORKS: ClassVar[Mapping[str, Network]] = {
        **LatentUNet.NETWORKS,
        "text_encoder_2": Network(CLIPTextModelWithProjection),
    }

    def check(self) -> None:
        super().check()
        unet = self.parts.config("unet")
        if unet.get("addition_embed_type") != "text_time":
            raise BadFiles("its UNet is not told of sizes: it is no SDXL")
        sizes = unet["projection_class_embeddings_input_dim"] - self.parts.config("text_encoder_2")["projection_dim"]
        if sizes != 6 * unet["addition_time_embed_dim"]:
            raise BadFiles("its UNet is told of something else than six sizes: it is no SDXL base model")
        _ = self.tokenizer_2

    @property
    def tokenizer_2(self) -> Any:
        return clip_tokenizer(self.parts, "tokenizer_2", "text_encoder_2")

    def encode_prompt(self, text: str) -> Embedding:
        """The embedding [1, T, D] of a prompt, cut at as many tokens as CLIP takes, and a summary [1, P] of it.

        No prompt is all zeros, as it was in the training.
        """
        read = [
            self.parts[encoder](self.tokens(text, tokenizer).input_ids, output_hidden_states=True)
            for encoder, tokenizer in (("text_encoder", self.tokenizer), ("text_encoder_2", self.tokenizer_2))
        ]
        embedding = torch.cat([said.hidden_states[-2] for said in read], dim=-1)
        summary: Tensor = read[1].text_embeds
        return (embedding, summary) if text else (torch.zeros_like(embedding), torch.zeros_like(summary))

    def added(self, rest: list[Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        width, height = size
        (summary,) = rest
        sizes = summary.new_tensor([height, width, 0, 0, height, width])
        return {"text_embeds": summary, "time_ids": sizes.expand(len(summary), -1)}


FAMILY = StableDiffusionXL
