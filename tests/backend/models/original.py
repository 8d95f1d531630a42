"""Models written as their first authors wrote them: the reverse of what diffusers' converters do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def _renamed(weights: Mapping[str, Tensor], rules: list[tuple[str, str]]) -> Weights:
    renamed = {}
    for name, value in weights.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


RESNET = [
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.conv_shortcut\.", ".skip_connection."),
]


def unet(weights: Mapping[str, Tensor], config: Mapping[str, Any], prefix: str = "model.diffusion_model.") -> Weights:
    """A UNet of Stable Diffusion or SDXL."""
    layers = config["layers_per_block"]
    with_attention = {index for index, kind in enumerate(config["up_block_types"]) if "CrossAttn" in kind}

    def placed(name: str) -> str:
        if ".resnets." in name:
            for pattern, replacement in RESNET:
                name = re.sub(pattern, replacement, name)
        if found := re.match(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
            block, kind, layer, rest = int(found[1]), found[2], int(found[3]), found[4]
            return f"input_blocks.{(layers + 1) * block + layer + 1}.{int(kind == 'attentions')}.{rest}"
        if found := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
            return f"input_blocks.{(layers + 1) * (int(found[1]) + 1)}.0.op.{found[2]}"
        if found := re.match(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
            block, kind, layer, rest = int(found[1]), found[2], int(found[3]), found[4]
            return f"output_blocks.{(layers + 1) * block + layer}.{int(kind == 'attentions')}.{rest}"
        if found := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.*)", name):
            block = int(found[1])
            return f"output_blocks.{(layers + 1) * block + layers}.{1 + int(block in with_attention)}.conv.{found[2]}"
        if found := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
            place = 1 if found[1] == "attentions" else 2 * int(found[2])
            return f"middle_block.{place}.{found[3]}"
        for old, new in {
            "time_embedding.linear_1.": "time_embed.0.",
            "time_embedding.linear_2.": "time_embed.2.",
            "add_embedding.linear_1.": "label_emb.0.0.",
            "add_embedding.linear_2.": "label_emb.0.2.",
            "conv_in.": "input_blocks.0.0.",
            "conv_norm_out.": "out.0.",
            "conv_out.": "out.2.",
        }.items():
            if name.startswith(old):
                return new + name[len(old) :]
        raise AssertionError(f"where does {name} belong?")

    return {prefix + placed(name): value for name, value in weights.items()}


def vae(weights: Mapping[str, Tensor], config: Mapping[str, Any], prefix: str = "first_stage_model.") -> Weights:
    """An autoencoder, whose attention was made of convolutions."""
    last = len(config["block_out_channels"]) - 1
    rules = [
        (r"^encoder\.down_blocks\.(\d+)\.resnets\.(\d+)", r"encoder.down.\1.block.\2"),
        (r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0", r"encoder.down.\1.downsample"),
        (r"mid_block\.resnets\.0", "mid.block_1"),
        (r"mid_block\.resnets\.1", "mid.block_2"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
        (r"mid_block\.attentions\.0\.to_([qkv])\.", r"mid.attn_1.\1."),
        (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"conv_shortcut", "nin_shortcut"),
        (r"conv_norm_out", "norm_out"),
    ]
    for block in range(last + 1):
        rules += [
            (rf"^decoder\.up_blocks\.{block}\.resnets\.(\d+)", rf"decoder.up.{last - block}.block.\1"),
            (rf"^decoder\.up_blocks\.{block}\.upsamplers\.0", f"decoder.up.{last - block}.upsample"),
        ]
    found = _renamed(weights, rules)
    for name, value in found.items():
        if "mid.attn_1" in name and value.ndim == 2:
            found[name] = value[:, :, None, None]
    return {prefix + name: value for name, value in found.items()}


def clip(weights: Mapping[str, Tensor], prefix: str = "cond_stage_model.transformer.") -> Weights:
    """CLIP's text encoder, as OpenAI's and transformers had it."""
    length = weights["embeddings.position_embedding.weight"].shape[0]
    written = {f"{prefix}text_model.{name}": value for name, value in weights.items()}
    device = next(iter(weights.values())).device
    written[f"{prefix}text_model.embeddings.position_ids"] = torch.arange(length, device=device)[None]
    return written


def open_clip(weights: Mapping[str, Tensor], prefix: str = "conditioner.embedders.1.model.") -> Weights:
    """OpenCLIP's text encoder, with queries, keys and values in one."""
    rules = [
        (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
        (r"\.layer_norm1\.", ".ln_1."),
        (r"\.layer_norm2\.", ".ln_2."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
        (r"\.self_attn\.", ".attn."),
        (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
        (r"^text_model\.final_layer_norm\.", "ln_final."),
        (r"^text_projection\.weight", "text_projection"),
    ]
    found = _renamed(weights, rules)
    found["text_projection"] = found["text_projection"].T.contiguous()
    for name in [name for name in found if ".attn.q_proj." in name]:
        kind = name.rpartition(".")[2]
        parts = [found.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        found[name.replace(f"q_proj.{kind}", f"in_proj_{kind}")] = torch.cat(parts)
    return {prefix + name: value for name, value in found.items()}


def _swapped(value: Tensor) -> Tensor:
    scale, shift = value.chunk(2)
    return torch.cat([shift, scale])


def _fused(found: Weights, first: str, others: tuple[str, ...], into: str) -> None:
    """Lay the layers `others` behind `first`, wherever it is, under one name."""
    for name in [name for name in found if first in name]:
        parts = [found.pop(name)] + [found.pop(name.replace(first, other)) for other in others]
        found[name.replace(first, into)] = torch.cat(parts)


def flux1(weights: Mapping[str, Tensor], prefix: str = "") -> Weights:
    """The transformer of FLUX.1."""
    found = dict(weights)
    for name in list(found):
        if re.match(r"single_transformer_blocks\.\d+\.attn\.to_q\.", name):
            names = [name, name.replace("to_q", "to_k"), name.replace("to_q", "to_v")]
            parts = [found.pop(each) for each in [*names, name.replace("attn.to_q", "proj_mlp")]]
            found[name.replace("attn.to_q", "linear1")] = torch.cat(parts)
    _fused(found, ".attn.to_q.", (".attn.to_k.", ".attn.to_v."), ".img_attn.qkv.")
    _fused(found, ".attn.add_q_proj.", (".attn.add_k_proj.", ".attn.add_v_proj."), ".txt_attn.qkv.")
    rules = [
        (r"^single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.lin"),
        (r"^single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight", r"single_blocks.\1.norm.query_norm.scale"),
        (r"^single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight", r"single_blocks.\1.norm.key_norm.scale"),
        (r"^single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
        (r"^single_transformer_blocks\.", "single_blocks."),
        (r"^transformer_blocks\.", "double_blocks."),
        (r"\.norm1\.linear", ".img_mod.lin"),
        (r"\.norm1_context\.linear", ".txt_mod.lin"),
        (r"\.attn\.norm_q\.weight", ".img_attn.norm.query_norm.scale"),
        (r"\.attn\.norm_k\.weight", ".img_attn.norm.key_norm.scale"),
        (r"\.attn\.norm_added_q\.weight", ".txt_attn.norm.query_norm.scale"),
        (r"\.attn\.norm_added_k\.weight", ".txt_attn.norm.key_norm.scale"),
        (r"\.attn\.to_out\.0", ".img_attn.proj"),
        (r"\.attn\.to_add_out", ".txt_attn.proj"),
        (r"\.ff\.net\.0\.proj", ".img_mlp.0"),
        (r"\.ff\.net\.2", ".img_mlp.2"),
        (r"\.ff_context\.net\.0\.proj", ".txt_mlp.0"),
        (r"\.ff_context\.net\.2", ".txt_mlp.2"),
        (r"^time_text_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
        (r"^time_text_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
        (r"^time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer"),
        (r"^time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer"),
        (r"^time_text_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
        (r"^time_text_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
        (r"^context_embedder", "txt_in"),
        (r"^x_embedder", "img_in"),
        (r"^proj_out", "final_layer.linear"),
        (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    ]
    found = _renamed(found, rules)
    for name in ("final_layer.adaLN_modulation.1.weight", "final_layer.adaLN_modulation.1.bias"):
        found[name] = _swapped(found[name])
    return {prefix + name: value for name, value in found.items()}


def flux2(weights: Mapping[str, Tensor], prefix: str = "") -> Weights:
    """The transformer of FLUX.2."""
    found = dict(weights)
    _fused(found, ".attn.to_q.", (".attn.to_k.", ".attn.to_v."), ".img_attn.qkv.")
    _fused(found, ".attn.add_q_proj.", (".attn.add_k_proj.", ".attn.add_v_proj."), ".txt_attn.qkv.")
    rules = [
        (r"^single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj", r"single_blocks.\1.linear1"),
        (r"^single_transformer_blocks\.(\d+)\.attn\.to_out", r"single_blocks.\1.linear2"),
        (r"^single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight", r"single_blocks.\1.norm.query_norm.scale"),
        (r"^single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight", r"single_blocks.\1.norm.key_norm.scale"),
        (r"^transformer_blocks\.", "double_blocks."),
        (r"\.attn\.norm_q\.weight", ".img_attn.norm.query_norm.scale"),
        (r"\.attn\.norm_k\.weight", ".img_attn.norm.key_norm.scale"),
        (r"\.attn\.norm_added_q\.weight", ".txt_attn.norm.query_norm.scale"),
        (r"\.attn\.norm_added_k\.weight", ".txt_attn.norm.key_norm.scale"),
        (r"\.attn\.to_out\.0", ".img_attn.proj"),
        (r"\.attn\.to_add_out", ".txt_attn.proj"),
        (r"\.ff\.linear_in", ".img_mlp.0"),
        (r"\.ff\.linear_out", ".img_mlp.2"),
        (r"\.ff_context\.linear_in", ".txt_mlp.0"),
        (r"\.ff_context\.linear_out", ".txt_mlp.2"),
        (r"^time_guidance_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
        (r"^time_guidance_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
        (r"^time_guidance_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
        (r"^time_guidance_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
        (r"^(double_stream_modulation_(?:img|txt)|single_stream_modulation)\.linear", r"\1.lin"),
        (r"^context_embedder", "txt_in"),
        (r"^x_embedder", "img_in"),
        (r"^proj_out", "final_layer.linear"),
        (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    ]
    found = _renamed(found, rules)
    for name in [name for name in found if name.startswith("final_layer.adaLN_modulation")]:
        found[name] = _swapped(found[name])
    return {prefix + name: value for name, value in found.items()}
