"""Files are recognised by the names and shapes in their headers, for models of their real sizes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from torch import Tensor
from underpaint_backend.models.headers import BadFile, Header, Stored
from underpaint_backend.models.recognise import PACKS, Recognised, UnknownFamily, parts_in, recognise

from tests.backend.models import original
from tests.backend.models.weight_files import (
    Shapes,
    checkpoint_of,
    config_of,
    kohya,
    layers_of,
    lora,
    originally,
    peft,
    weights_of,
)

VARIANTS = sorted(folder.name for folder in PACKS.iterdir() if (folder / "defaults.json").is_file())


def header_of(weights: Mapping[str, Tensor | tuple[int, ...]], dtype: str = "F16") -> Header:
    """The header of a file with these tensors, of which only the shapes matter."""
    shapes = {name: tuple(getattr(value, "shape", value)) for name, value in weights.items()}
    return Header({name: Stored(dtype, shape, 1) for name, shape in shapes.items()}, {})


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_is_recognised(variant: str) -> None:
    """Family, variant and kind are told from the original layout; of [klein], the file's name tells the rest."""
    found = recognise(header_of(checkpoint_of(variant)))

    assert found.family == json.loads((PACKS / variant / "defaults.json").read_text())["family"]
    assert found.kind == ("transformer" if "flux" in variant else "checkpoint")
    assert found.pack(variant) == PACKS / variant
    assert found.name


@pytest.mark.parametrize("variant", VARIANTS)
def test_diffusers_own_layout_is_recognised(variant: str) -> None:
    """A denoiser as `save_pretrained` writes it."""
    part = "transformer" if "flux" in variant else "unet"
    header = header_of(weights_of(variant, part))

    found = recognise(header)

    assert (found.kind, found.pack(variant)) == ("transformer", PACKS / variant)
    assert parts_in(header) == {part: ""}


@pytest.mark.parametrize("variant", ["flux1-dev", "flux2-klein-4b"])
@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "transformer."])
def test_prefixes_are_no_matter(variant: str, prefix: str) -> None:
    """Programs put different words before the same names."""
    header = header_of({prefix + name: value for name, value in checkpoint_of(variant).items()})

    assert recognise(header).variant == variant
    assert parts_in(header) == {"transformer": prefix}


def test_the_parts_of_a_file_are_known() -> None:
    """A whole checkpoint holds all, and one without a text encoder holds the rest."""
    assert sorted(parts_in(header_of(checkpoint_of("sdxl")))) == ["text_encoder", "text_encoder_2", "unet", "vae"]
    assert sorted(parts_in(header_of(checkpoint_of("sd1")))) == ["text_encoder", "unet", "vae"]
    without = {name: value for name, value in checkpoint_of("sd1").items() if "cond_stage_model" not in name}
    assert sorted(parts_in(header_of(without))) == ["unet", "vae"]


@pytest.mark.parametrize(("variant", "family"), [("sd1", "stable_diffusion"), ("flux1-dev", "flux1")])
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_a_vae_is_recognised(variant: str, family: str, layout: str) -> None:
    """Its channels tell the family."""
    weights = weights_of(variant, "vae")
    if layout == "original":
        weights = original.vae(weights, config_of(variant, "vae"), "")

    found = recognise(header_of(weights))

    assert (found.kind, found.family) == ("vae", family)


SD = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
TO_K = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
STRANGE: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "SD 2": ({**SD, TO_K: (320, 1024)}, "Stable Diffusion 2"),
    "instructions": (
        {"model.diffusion_model.input_blocks.0.0.weight": (320, 8, 3, 3), TO_K: (320, 768)},
        "for edits by instruction with 8 input channels",
    ),
    "refiner": (
        {**SD, TO_K: (384, 1280), "model.diffusion_model.label_emb.0.0.weight": (1536, 2560)},
        "the refiner of SDXL",
    ),
    "ControlNet": ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "a ControlNet"),
    "SD 3": ({"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight": (1, 1)}, "Stable Diffusion 3"),
    "Wan": ({"head.modulation": (1, 2, 1536)}, "Wan"),
    "Chroma": (
        {
            "img_in.weight": (3072, 64),
            "txt_in.weight": (3072, 4096),
            "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
            "distilled_guidance_layer.in_proj.bias": (5120,),
        },
        "Chroma",
    ),
    "Depth": (
        {
            "img_in.weight": (3072, 128),
            "txt_in.weight": (3072, 4096),
            "double_blocks.0.img_mod.lin.weight": (18432, 3072),
        },
        "FLUX.1 Canny or Depth",
    ),
    "T5": ({"encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096)}, "a T5 text encoder"),
    "embedding": ({"emb_params": (8, 768)}, "a textual inversion embedding"),
    "LoHa": ({"lora_unet_x.hada_w1_a": (4, 4), "lora_unet_x.alpha": ()}, "a LoHa, which is not a LoRA"),
    "DoRA": ({"lora_unet_x.lora_up.weight": (4, 4), "lora_unet_x.dora_scale": (4, 1)}, "a DoRA, which is not a LoRA"),
    "LoRA for SD 3": ({"transformer.joint_blocks.0.x.lora_A.weight": (4, 4)}, "a LoRA for .*Stable Diffusion 3"),
    "speech": ({"decoder.voice.weight": (4, 4)}, "unknown family, with 1 tensors such as “decoder.voice.weight”"),
    "nothing": ({}, "a file without tensors"),
    "a VAE of another kind": (
        {"decoder.conv_in.weight": (8, 12, 3, 3), "encoder.conv_in.weight": (8, 3, 3, 3)},
        "a VAE with 12 channels",
    ),
}


@pytest.mark.parametrize(("tensors", "words"), STRANGE.values(), ids=STRANGE.keys())
def test_what_is_not_known_is_refused_by_name(tensors: dict[str, tuple[int, ...]], words: str) -> None:
    """The error says what was seen."""
    with pytest.raises(UnknownFamily, match=words):
        recognise(header_of(tensors))


@pytest.mark.parametrize("variant", ["sd1", "sdxl"])
def test_a_text_encoder_in_the_older_naming_is_one(variant: str) -> None:
    """Early checkpoints of Stable Diffusion have no “text_model.” in the names of its layers."""
    newer = checkpoint_of(variant)
    older = {name.replace("transformer.text_model.", "transformer."): value for name, value in newer.items()}
    assert older != newer
    assert parts_in(header_of(older)) == parts_in(header_of(newer))


def test_packed_numbers_of_what_is_never_read_are_none_s_business() -> None:
    """Files with all of FLUX in one have a T5 in 8 bits with scales; it is borrowed from another model."""
    transformer = {f"model.diffusion_model.{name}": shape for name, shape in checkpoint_of("flux1-dev").items()}
    beside: dict[str, Any] = {
        "text_encoders.t5xxl.transformer.scaled_fp8": (1,),
        "vae.decoder.conv_in.weight": (8,) * 4,
    }
    assert recognise(header_of({**transformer, **beside})).variant == "flux1-dev"
    for name in ("model.diffusion_model.scaled_fp8", "vae.decoder.conv_in.scale_weight", "scaled_fp8"):
        with pytest.raises(BadFile, match="8 bits with scales"):
            recognise(header_of({**transformer, **beside, name: (1,)}))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("double_blocks.0.img_attn.qkv.weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        ("double_blocks.0.img_attn.qkv.scale_weight", "8 bits with scales"),
        ("scaled_fp8", "8 bits with scales"),
        ("transformer_blocks.0.qweight", "4 bits"),
    ],
)
def test_packed_numbers_are_refused(name: str, words: str) -> None:
    """They would be loaded as if they were the weights, and paint noise."""
    tensors: dict[str, Any] = {**checkpoint_of("flux1-dev"), name: (1,)}

    with pytest.raises(BadFile, match=words):
        recognise(header_of(tensors))


def test_models_of_other_sizes_have_a_family_and_no_variant() -> None:
    """There are no configurations for them."""
    found = recognise(header_of({**SD, TO_K: (32, 32)}))

    assert found == Recognised("checkpoint", "stable_diffusion", "", "Stable Diffusion 1.5")
    assert found.pack("model") is None


# LoRAs


LORAS: dict[str, tuple[Callable[[], Shapes], str, str]] = {
    "sd1 peft": (lambda: peft("unet.")(layers_of("sd1", "attn2.to_")), "stable_diffusion", ""),
    "sd1 kohya": (lambda: kohya("lora_unet_")(layers_of("sd1", "attn")), "stable_diffusion", ""),
    "sd1 old diffusers": (
        lambda: lora(layers_of("sd1", "attn1.to_q"), "lora.down", "lora.up", "unet."),
        "stable_diffusion",
        "",
    ),
    "sd1 text": (
        lambda: kohya("lora_te_")({"text_model.encoder.layers.0.mlp.fc1": (3072, 768)}),
        "stable_diffusion",
        "",
    ),
    "sdxl peft": (lambda: peft("unet.")(layers_of("sdxl", "attn2.to_k")), "stable_diffusion_xl", ""),
    "sdxl kohya": (lambda: kohya("lora_unet_")(layers_of("sdxl", "attn1.to_q")), "stable_diffusion_xl", ""),
    "sdxl kohya, original names": (
        lambda: kohya("lora_unet_")({"input_blocks.4.1.transformer_blocks.0.attn2.to_k": (640, 2048)}),
        "stable_diffusion_xl",
        "",
    ),
    "sdxl text": (lambda: kohya("lora_te2_")({"text_model.layers.0.mlp.fc1": (5120, 1280)}), "stable_diffusion_xl", ""),
}
for _pattern in ("attn.to_q", "attn.add_q_proj", "norm", "ff.", "proj_mlp"):
    LORAS[f"flux1 peft {_pattern}"] = (
        functools.partial(lambda pattern: peft("transformer.")(layers_of("flux1-dev", pattern)), _pattern),
        "flux1",
        "",
    )
for _pattern in ("img_attn.qkv", "linear1", "linear2", "img_mlp.0", "mod.lin"):
    for _how, _prefix in ((kohya, "lora_unet_"), (peft, "diffusion_model."), (peft, "")):
        LORAS[f"flux1 {_how.__name__} {_prefix} {_pattern}"] = (
            functools.partial(
                lambda how, prefix, pattern: how(prefix)(originally("flux1-dev", pattern)), _how, _prefix, _pattern
            ),
            "flux1",
            "",
        )
for _variant in ("flux2-klein-4b", "flux2-klein-9b", "flux2-dev"):
    for _pattern in ("attn.to_q", "attn.to_qkv_mlp_proj", "ff.linear_in"):
        LORAS[f"{_variant} peft {_pattern}"] = (
            functools.partial(
                lambda variant, pattern: peft("transformer.")(layers_of(variant, pattern)), _variant, _pattern
            ),
            "flux2",
            _variant,
        )
    for _pattern in ("img_attn.qkv", "linear1", "img_mlp.0"):
        LORAS[f"{_variant} original {_pattern}"] = (
            functools.partial(
                lambda variant, pattern: peft("diffusion_model.")(originally(variant, pattern)), _variant, _pattern
            ),
            "flux2",
            _variant,
        )


@pytest.mark.parametrize(("build", "family", "variant"), LORAS.values(), ids=LORAS.keys())
def test_a_lora_is_recognised(build: Callable[[], Shapes], family: str, variant: str) -> None:
    """By whichever trainer it was written, and however few layers it changes."""
    shapes = build()
    assert shapes
    found = recognise(header_of(shapes, "F32"))

    assert (found.kind, found.family, found.variant) == ("lora", family, variant)
    assert found.name


def test_the_clip_vocabulary_is_the_real_one() -> None:
    """The merges that the packs share are those of CLIP: so many, and in this order."""
    merges = (PACKS / "clip" / "merges.txt").read_text(encoding="utf-8").splitlines()

    assert len(merges) == 49408 - 2 * 256 - 2
    assert merges[:3] == ["i n", "t h", "a n"]
