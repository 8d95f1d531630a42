"""What a single file of weights is, told from the names and shapes in its header alone.

Three layouts are in use: the one of the original authors ("model.diffusion_model.input_blocks.0.0.weight"), which
ComfyUI and A1111 share; diffusers' own ("down_blocks.0.resnets.0.conv1.weight"); and for LoRAs that of kohya's trainer
("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"), which flattens either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from .headers import BadFile, Header, short

Kind: TypeAlias = Literal["checkpoint", "transformer", "vae", "lora"]
"""A checkpoint is a whole model, or all but what other models share; a transformer is only the denoiser."""

PACKS = Path(__file__).parent / "packs"
"""Configurations, one folder for each variant, of what files hold without saying how it is put together."""


@dataclass(frozen=True)
class Recognised:
    """What a file is.

    `family` is the name of the engine's module. `variant` is the name of a folder in `packs`, or "" where the header
    does not tell: a LoRA often suits all variants. `name` is for the artist.
    """

    kind: Kind
    family: str
    variant: str
    name: str

    def pack(self, stem: str) -> Path | None:
        """The folder with the configurations for a file of this name; None if there is none."""
        variant = self.called(stem).variant
        folder = PACKS / variant
        return folder if variant and folder.is_dir() else None

    def called(self, stem: str) -> Recognised:
        """What it is if it is called so, for some variants differ in nothing that a header tells."""
        for variant, word, called, name in _BY_NAME:
            if self.variant == variant and word in stem.lower():
                return replace(self, variant=called, name=name)
        return self


_BY_NAME = (
    ("flux1-dev", "kontext", "flux1-kontext", "FLUX.1 [Kontext]"),
    ("flux2-klein-4b", "base", "flux2-klein-base-4b", "FLUX.2 [klein] 4B Base"),
    ("flux2-klein-9b", "base", "flux2-klein-base-9b", "FLUX.2 [klein] 9B Base"),
)
"""A variant, a word in the file's name, and which variant that says it is instead, with its name for the artist."""


class UnknownFamily(BadFile):
    """A file is sound, but of no family that is known. `seen` says what it is, as far as can be told."""

    def __init__(self, seen: str) -> None:
        super().__init__(f"it is {seen}, which Underpaint cannot paint with")
        self.seen = seen


LDM = "model.diffusion_model."
PREFIXES = (LDM, "diffusion_model.", "transformer.", "model.", "net.")

STRANGERS: tuple[tuple[str, str], ...] = (
    (r"joint_blocks\.0\.", "Stable Diffusion 3"),
    (r"distilled_guidance_layer\.", "Chroma"),
    (r"txt_in\.individual_token_refiner\.", "HunyuanVideo"),
    (r"early_stream_modulations\.", "FLUX.3"),
    (r"(head\.modulation$|blocks\.0\.cross_attn\.norm_k\.)", "Wan"),
    (r"txtfusion\.", "Krea 2"),
    (r"txt_in\.text_norm\.", "Qwen-Image 2.1"),
    (r"transformer_blocks\.0\.img_mod\.1\.", "Qwen-Image"),
    (r"(layers\.0\.adaLN_modulation\.0\.|all_x_embedder\.)", "Z-Image"),
    (r"cap_embedder\.0\.", "Lumina 2"),
    (r"double_layers\.0\.", "AuraFlow"),
    (r"double_stream_blocks\.0\.block\.", "HiDream"),
    (r"(patchify_proj\.|scale_shift_table$)", "LTX-Video or PixArt"),
    (r"(clip_txt_mapper\.|\.channelwise\.0\.)", "Stable Cascade"),
    (r"(^control_model\.|controlnet_cond_embedding\.|input_hint_block\.|^controlnet)", "a ControlNet"),
    (r"motion_modules\.", "a motion module of AnimateDiff"),
    (r"(^ip_adapter\.|^image_proj\.)", "an IP-Adapter"),
    (r"(^emb_params$|^string_to_param|^clip_[lg]$)", "a textual inversion embedding"),
    (r"encoder\.block\.0\.layer\.0\.SelfAttention\.", "a T5 text encoder"),
    (r"(text_model\.encoder\.layers\.0\.|resblocks\.0\.attn\.)", "a CLIP text encoder"),
    (r"(model\.layers\.0\.self_attn\.|blk\.0\.attn_(q|qkv|norm)\.)", "a language model, or a text encoder"),
    (r"upsampler?\.|body\.0\.rdb1|model\.0\.weight$", "an upscaler"),
)
"""What is often found beside models, by a pattern in its tensors' names."""


def recognise(header: Header) -> Recognised:
    """What the file with this header is.

    Raises `UnknownFamily`, and `BadFile` for a known family in a form that cannot be loaded.
    """
    if is_lora(header.tensors):
        return _lora(header)
    found = _unet(header) or _flux(header) or _vae(header)
    if found is None:
        raise UnknownFamily(_stranger(header))
    _refuse_packed_numbers(header)
    return found


_PARTS = {
    "unet": (f"{LDM}input_blocks.0.0.weight", f"{LDM}"),
    "text_encoder_2": ("conditioner.embedders.1.model.positional_embedding", "conditioner.embedders.1.model."),
}
_TEXT = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
"""Where Stable Diffusion and SDXL have their (first) text encoder. Old files leave “text_model.” away in its names."""


def parts_in(header: Header) -> dict[str, str]:
    """The parts of a model that a file holds, by diffusers' names, and what their tensors' names begin with."""
    parts = {name: prefix for name, (mark, prefix) in _PARTS.items() if mark in header}
    for prefix in _TEXT:
        if any(f"{prefix}{old}embeddings.position_embedding.weight" in header for old in ("text_model.", "")):
            parts["text_encoder"] = prefix
    for prefix in ("first_stage_model.", "vae."):
        if f"{prefix}decoder.conv_in.weight" in header:
            parts["vae"] = prefix
    if "unet" not in parts and len(header.shape("conv_in.weight")) == 4:
        parts["unet"] = ""
    for prefix in ("", *PREFIXES):
        names = ("img_in.weight", "x_embedder.weight")
        if "unet" not in parts and any(len(header.shape(f"{prefix}{name}")) == 2 for name in names):
            parts.setdefault("transformer", prefix)
    return parts


def _stranger(header: Header) -> str:
    for pattern, name in STRANGERS:
        if any(re.search(pattern, tensor) for tensor in header.tensors):
            return name
    if not header.tensors:
        return "a file without tensors"
    first = min(header.tensors)
    return f"a model of an unknown family, with {len(header.tensors)} tensors such as {short(first)}"


def _refuse_packed_numbers(header: Header) -> None:
    """Numbers that need a scale, or that are packed several to a byte, are not the weights themselves.

    Looked at is what a model would be made of, and what stands before all parts: a text encoder that lies beside them
    under a name of its own is never read.
    """
    used = tuple(parts_in(header).values()) or ("",)
    for name in header.tensors:
        if "." in name and not name.startswith(used):
            continue
        if name.endswith((".absmax", ".quant_map")) or ".quant_state." in name:
            raise BadFile("its weights are packed in 4 or 8 bits by bitsandbytes; choose a file in fp16, bf16 or fp8")
        if name.endswith((".scale_weight", ".weight_scale", "scaled_fp8", ".comfy_quant")):
            raise BadFile("its weights are in 8 bits with scales beside them; choose a file in fp16, bf16 or plain fp8")
        if name.endswith((".qweight", ".qzeros", ".wscales")):
            raise BadFile("its weights are packed in 4 bits; choose a file in fp16, bf16 or fp8")


def _unet(header: Header) -> Recognised | None:
    """Stable Diffusion and SDXL, as whole checkpoints in the original layout, or as diffusers' UNets."""
    entry = header.shape(f"{LDM}input_blocks.0.0.weight")
    prompts = _first_shape(header, r"^model\.diffusion_model\.input_blocks\.\d+\.1\.transformer_blocks\.0\.attn2\.to_k")
    is_xl = f"{LDM}label_emb.0.0.weight" in header
    kind: Kind = "checkpoint"
    if len(entry) != 4:
        entry = header.shape("conv_in.weight")
        prompts = _first_shape(header, r"^down_blocks\.\d+\.attentions\.0\.transformer_blocks\.0\.attn2\.to_k")
        is_xl = "add_embedding.linear_1.weight" in header
        kind = "transformer"
        if len(entry) != 4 or not prompts:
            return None
    elif any(name.startswith("control_model.") for name in header.tensors):
        return None
    return _diffusion(kind, entry[1], prompts[-1] if prompts else 0, is_xl)


def _diffusion(kind: Kind, channels: int, width: int, is_xl: bool) -> Recognised:
    """A UNet of so many input channels, that takes embeddings of this width."""
    if channels not in (4, 9):
        purpose = {8: "for edits by instruction", 5: "for depth", 7: "for upscaling"}.get(channels, "")
        raise UnknownFamily(f"a Stable Diffusion model {purpose} with {channels} input channels".replace("  ", " "))
    fills = channels == 9
    purpose, ending = (" for inpainting", "-inpaint") if fills else ("", "")
    if is_xl and width == 1280:
        raise UnknownFamily("the refiner of SDXL")
    if is_xl:
        known = width == 2048
        return Recognised(kind, "stable_diffusion_xl", f"sdxl{ending}" if known else "", f"SDXL{purpose}")
    if width == 1024:
        raise UnknownFamily("Stable Diffusion 2")
    return Recognised(
        kind, "stable_diffusion", f"sd1{ending}" if width == 768 else "", f"Stable Diffusion 1.5{purpose}"
    )


def _flux(header: Header) -> Recognised | None:
    """FLUX.1 and FLUX.2, whose files mostly hold the transformer alone."""
    for prefix in ("", *PREFIXES):
        entry, text = header.shape(f"{prefix}img_in.weight"), header.shape(f"{prefix}txt_in.weight")
        original = len(entry) == 2 and len(text) == 2
        if not original:
            entry, text = (header.shape(f"{prefix}{name}.weight") for name in ("x_embedder", "context_embedder"))
        if len(entry) != 2 or len(text) != 2:
            continue
        if any(f"{prefix}{name}" in header for name in _FLUX2_MARKS):
            return _flux2(entry[0], text[1], entry[1])
        if any(f"{prefix}{name}" in header for name in _FLUX1_MARKS) and not _is_chroma(header):
            guided = any(f"{prefix}{name}" in header for name in _GUIDANCE)
            return _flux1(entry[0], entry[1], guided)
    return None


_FLUX1_MARKS = ("double_blocks.0.img_mod.lin.weight", "transformer_blocks.0.norm1_context.linear.weight")
_FLUX2_MARKS = ("single_stream_modulation.lin.weight", "single_stream_modulation.linear.weight")
_GUIDANCE = ("guidance_in.in_layer.weight", "time_text_embed.guidance_embedder.linear_1.weight")


def _is_chroma(header: Header) -> bool:
    return any("distilled_guidance_layer." in name for name in header.tensors)


def _flux1(width: int, channels: int, guided: bool) -> Recognised:
    if channels == 128:
        raise UnknownFamily("FLUX.1 Canny or Depth")
    if channels not in (64, 384):
        raise UnknownFamily(f"a model like FLUX.1 with {channels} input channels")
    variant = "fill" if channels == 384 else "dev" if guided else "schnell"
    known = width == 3072
    return Recognised("transformer", "flux1", f"flux1-{variant}" if known else "", f"FLUX.1 [{variant}]")


_FLUX2_SIZES = {
    (6144, 15360): ("flux2-dev", "FLUX.2 [dev]"),
    (4096, 12288): ("flux2-klein-9b", "FLUX.2 [klein] 9B"),
    (3072, 7680): ("flux2-klein-4b", "FLUX.2 [klein] 4B"),
}


def _flux2(width: int, text_width: int, channels: int) -> Recognised:
    if channels != 128:
        raise UnknownFamily(f"a model like FLUX.2 with {channels} input channels")
    variant, name = _FLUX2_SIZES.get((width, text_width), ("", "FLUX.2"))
    return Recognised("transformer", "flux2", variant, name)


_VAES = {4: ("stable_diffusion", "Stable Diffusion or SDXL"), 16: ("flux1", "FLUX.1"), 32: ("flux2", "FLUX.2")}


def _vae(header: Header) -> Recognised | None:
    """An autoencoder alone. Those of Stable Diffusion and SDXL have the same shapes."""
    for prefix in ("", "first_stage_model.", "vae."):
        entry = header.shape(f"{prefix}decoder.conv_in.weight")
        if len(entry) == 4 and f"{prefix}encoder.conv_in.weight" in header:
            family, name = _VAES.get(entry[1], ("", ""))
            if not family:
                raise UnknownFamily(f"a VAE with {entry[1]} channels")
            return Recognised("vae", family, "", f"a VAE for {name}")
    return None


# LoRAs

_LORA = re.compile(
    r"\.lora_(A|B|down|up)(\.[^.]+)?\.weight$|\.lora\.(down|up)\.weight$|\.lora_linear_layer\.(down|up)\.weight$"
    r"|_lora\d?\.(down|up)\.weight$|\.(lokr_w1|lokr_w1_a|hada_w1_a|oft_blocks)$"
)
_OTHERS = (
    (re.compile(r"\.hada_w1_a$"), "LoHa"),
    (re.compile(r"\.lokr_w1(_a)?$"), "LoKr"),
    (re.compile(r"\.oft_blocks$"), "OFT"),
    (re.compile(r"\.(dora_scale$|lora_magnitude_vector)"), "DoRA"),
    (re.compile(r"\.lora_mid\.weight$"), "LoCon with three factors"),
)


def is_lora(names: Iterable[str]) -> bool:
    """Whether tensors of these names change a model instead of being one."""
    return any(_LORA.search(name) for name in names)


def _lora(header: Header) -> Recognised:
    for pattern, other in _OTHERS:
        if any(pattern.search(name) for name in header.tensors):
            raise UnknownFamily(f"a {other}, which is not a LoRA")
    # Trainers flatten names in different ways; with one separator they are all alike.
    shapes = {name.replace(".", "_"): stored.shape for name, stored in header.tensors.items()}
    found = _flux_lora(shapes) or _unet_lora(shapes)
    if found is None:
        raise UnknownFamily(f"a LoRA for {_stranger(header)}")
    return found


_FLUX_LAYERS = re.compile(
    r"(?:double|single)_blocks_\d+_(?!block)|single_transformer_blocks_\d+_"
    r"|^(?:(?:lora_)?transformer_)?transformer_blocks_\d+_(?:attn_|ff_|norm1)",
    re.MULTILINE,
)
_FLUX1_ONLY = re.compile(
    r"(?:img|txt)_mod_lin|modulation_lin|norm1?(?:_context)?_linear|proj_mlp|_net_[02]_|vector_in_"
)
_FLUX2_ONLY = re.compile(r"attn_to_qkv_mlp_proj|ff(?:_context)?_linear_|(?:double|single)_stream_modulation")
_OTHER_TRANSFORMERS = re.compile(r"joint_blocks_|(?:img|txt)_mod_1|(?:img|txt)_mlp_net_")


def _flux_lora(shapes: dict[str, tuple[int, ...]]) -> Recognised | None:
    names = "\n".join(shapes)
    width = _width(shapes)
    doubles, singles = (
        max(map(int, re.findall(rf"{kind}_(\d{{1,4}})_", names)), default=0)
        for kind in ("(?:double_blocks|(?<!single_)transformer_blocks)", "(?:single_blocks|single_transformer_blocks)")
    )
    if not _FLUX_LAYERS.search(names) or _OTHER_TRANSFORMERS.search(names) or width in (1536, 2432) or doubles >= 19:
        return None
    if _FLUX2_ONLY.search(names):
        return _flux2_lora(width)
    if _FLUX1_ONLY.search(names):
        return _FLUX1_LORA
    # What is left are layers that both have. FLUX.2 has gates in its feed-forward layers, and [klein] fewer blocks.
    gives = {name: shape[0] for name, shape in shapes.items() if shape and _leaves(name, "linear1|mlp_0")}
    if gives and width:
        name, most = max(gives.items())
        return _flux2_lora(width) if most == (9 if "linear1" in name else 6) * width else _FLUX1_LORA
    if width == 3072 and (doubles >= 5 or singles >= 20):
        return _FLUX1_LORA
    return _flux2_lora(width) if width in (3072, 4096, 6144) else _FLUX1_LORA


_FLUX1_LORA = Recognised("lora", "flux1", "", "FLUX.1")


def _flux2_lora(width: int) -> Recognised:
    """FLUX.2's sizes differ in width, so that a LoRA suits one of them only."""
    for (known, _), (variant, name) in _FLUX2_SIZES.items():
        if width == known:
            return Recognised("lora", "flux2", variant, name)
    return Recognised("lora", "flux2", "", "FLUX.2")


def _unet_lora(shapes: dict[str, tuple[int, ...]]) -> Recognised | None:
    names = "\n".join(shapes)
    if not re.search(r"(?:down|up|input|output|mid|middle)_blocks?_|^(?:lora_te|text_encoder)", names, re.MULTILINE):
        return None
    width = next((shape[1] for name, shape in shapes.items() if len(shape) > 1 and _enters(name, "attn2_to_[kv]")), 0)
    if width == 1024:
        raise UnknownFamily("a LoRA for Stable Diffusion 2")
    if width == 2048 or re.search(r"transformer_blocks_[1-9]|^(?:lora_te2_|text_encoder_2_)", names, re.MULTILINE):
        return Recognised("lora", "stable_diffusion_xl", "", "SDXL")
    return Recognised("lora", "stable_diffusion", "", "Stable Diffusion 1.5")


def _width(shapes: dict[str, tuple[int, ...]]) -> int:
    """Numbers that a token has inside a transformer."""
    entering = r"attn_(?:qkv|to_[qkv]|to_qkv_mlp_proj|add_[qkv]_proj)|linear1|linear_in|mlp_0|net_0_proj"
    return next((shape[-1] for name, shape in shapes.items() if shape and _enters(name, entering)), 0)


def _enters(name: str, layer: str) -> bool:
    """Whether this is the half of a LoRA that takes what its layer takes."""
    found = re.search(rf"(?:{layer})_(?:lora_A|lora_down|lora_linear_layer_down|(processor))", name)
    return found is not None and (found[1] is None or "down" in name[found.end() :])


def _leaves(name: str, layer: str) -> bool:
    """Whether this is the half of a LoRA that gives what its layer gives."""
    return re.search(rf"(?:{layer})_(?:lora_B|lora_up)", name) is not None


def _first_shape(header: Header, pattern: str) -> tuple[int, ...]:
    return next((stored.shape for name, stored in header.tensors.items() if re.search(pattern, name)), ())
