"""IP-Adapter (Ye et al. 2023, arXiv:2308.06721): reference pictures for UNet models.

Each cross-attention of the UNet gets keys and values of its own for tokens that are made of pictures, and adds what it
finds there to what it finds in the prompt. diffusers knows how to convert the released files; nothing else is read.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.loaders.unet import UNet2DConditionLoadersMixin
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil

from .exceptions import BadFiles

_WIDTH_OF = {"proj.weight": -1, "proj.0.weight": 0, "proj_in.weight": 1}
"""By the kind of adapter: which side of which weight is as wide as what the image encoder says."""


class IPAdapter(nn.Module):
    """The layers of an adapter: `projection` makes tokens, and `attentions`, in the UNet's order, look at them.

    `width` is that of what it wants to know of a picture, and `token_width` that of a token.
    """

    def __init__(self, seeing: Mapping[str, Tensor], attending: Mapping[str, Tensor]) -> None:
        """The weights that make tokens, and those that attend to them, by their released names.

        Raises `BadFiles` for kinds of adapters that look at something else than a picture.
        """
        super().__init__()
        kinds = [name for name in _WIDTH_OF if name in seeing]
        if len(kinds) != 1 or not attending:
            raise BadFiles("its IP-Adapter is of a kind that is not known")
        if kinds == ["proj.0.weight"] and "proj.3.weight" not in seeing:
            raise BadFiles("its IP-Adapter wants faces that another program has measured, not pictures")
        self.sees_patches = kinds != ["proj.weight"]
        self.width = int(seeing[kinds[0]].shape[_WIDTH_OF[kinds[0]]])
        convert = UNet2DConditionLoadersMixin._convert_ip_adapter_image_proj_to_diffusers
        self.projection = convert(None, seeing, low_cpu_mem_usage=False)
        numbers = sorted({int(name.partition(".")[0]) for name in attending})
        self.attentions = nn.ModuleList(_attention(attending, number) for number in numbers)
        self.token_width = len(next(iter(attending.values()))[0])

    @classmethod
    def from_pretrained(cls, folder: Path, dtype: torch.dtype, **_: Any) -> tuple[Self, dict[str, list[str]]]:
        """The adapter in `folder`, a safetensors file or a folder with one, and that nothing is missing from it.

        Raises `BadFiles`, and whatever damaged weights make the libraries raise.
        """
        files = [folder] if folder.is_file() else sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            raise BadFiles(f"{folder.name} must hold one IP-Adapter, and holds {len(files)}")
        weights: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for name, weight in load_file(files[0]).items():
            part, _dot, rest = name.partition(".")
            if part in weights:
                weights[part][rest] = weight
        return cls(weights["image_proj"], weights["ip_adapter"]).to(dtype), {"missing_keys": []}

    def check(self, encoder: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
        """Raises `BadFiles` if the adapter was trained with others than the networks of these configurations."""
        width = encoder["hidden_size" if self.sees_patches else "projection_dim"]
        if width != self.width:
            raise BadFiles(f"its image encoder says {width} numbers where the IP-Adapter wants {self.width}")
        if unet["cross_attention_dim"] != self.token_width:
            raise BadFiles(f"its IP-Adapter makes tokens of {self.token_width} numbers, and its UNet takes other ones")

    def seen(self, encoder: Any, picture: Tensor) -> tuple[Tensor, Tensor]:
        """What the image encoder sees in a picture [1, 3, H, W], -1..1, and what stands for no picture.

        Each is [1, D], or [1, T, D] where the adapter looks at patches.
        """
        prepared = as_clip_sees(picture, encoder.config.image_size).to(encoder.dtype)
        if not self.sees_patches:
            embedding: Tensor = encoder(prepared).image_embeds
            return embedding, torch.zeros_like(embedding)
        both = torch.cat([prepared, torch.zeros_like(prepared)])
        patches: Tensor = encoder(both, output_hidden_states=True).hidden_states[-2]
        return patches[:1], patches[1:]

    def tokens(self, seen: Tensor) -> Tensor:
        """The tokens [B, N, T, D] of N pictures each, of which the encoder has `seen` [B, N, ...]."""
        tokens: Tensor = self.projection(seen.flatten(0, 1))
        return tokens.reshape(*seen.shape[:2], *tokens.shape[1:])


def wear(unet: Any, adapter: IPAdapter | None) -> None:
    """Make the UNet attend to what this adapter makes of pictures, or, without one, be as it was.

    While it wears one it has to be told of text and pictures: `(text, [tokens])`, or `(text, [])` for text alone. A
    UNet may serve two models of which one has an adapter, so this is called before each use. Raises `BadFiles` if the
    adapter is for another UNet.
    """
    worn: weakref.ref[IPAdapter] | None = unet.__dict__.get(_WORN)
    if (None if worn is None else worn()) is adapter and (adapter is not None or worn is None):
        return
    own = unet.__dict__.setdefault(_OWN, dict(unet.attn_processors))
    if adapter is None:
        unet.set_attn_processor(dict(own))
        del unet.__dict__[_WORN]
        return
    crossing = [name for name in own if not name.endswith("attn1.processor")]
    wanted = [unet.get_submodule(name.removesuffix(".processor")).to_k for name in crossing]
    found = [layer for layer in adapter.attentions.modules() if isinstance(layer, nn.Linear)][::2]
    if [layer.weight.shape for layer in wanted] != [layer.weight.shape for layer in found]:
        raise BadFiles("its IP-Adapter is for another UNet")
    looking = dict(zip(crossing, map(_Look, adapter.attentions), strict=True))
    unet.set_attn_processor({**own, **looking})
    unet.__dict__[_WORN] = weakref.ref(adapter)


_WORN, _OWN = "_underpaint_ip_adapter", "_underpaint_processors"
"""Where a UNet remembers the adapter that it wears, and what it had before."""


class _Look:
    """One attention of an adapter, as the UNet calls it: no part of the UNet, so that it stays where its adapter is."""

    def __init__(self, attention: nn.Module) -> None:
        self.attention = attention

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        found: Tensor = self.attention(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        return found


def _attention(weights: Mapping[str, Tensor], number: int) -> nn.Module:
    keys, values = weights[f"{number}.to_k_ip.weight"], weights[f"{number}.to_v_ip.weight"]
    attention: nn.Module = IPAdapterAttnProcessor2_0(hidden_size=len(keys), cross_attention_dim=keys.shape[1])
    attention.load_state_dict({"to_k_ip.0.weight": keys, "to_v_ip.0.weight": values})
    return attention


def as_clip_sees(picture: Tensor, side: int) -> Tensor:
    """The middle square of a picture [1, 3, H, W], -1..1, as CLIP's image encoder wants it: [1, 3, side, side]."""
    pixels = picture[0].add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).movedim(0, -1).cpu().numpy()
    prepare = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side)
    seen: Tensor = prepare(images=pixels, return_tensors="pt", input_data_format="channels_last").pixel_values
    return seen.to(picture.device)
