"""Models in one file: the same as in folders, without a network, and words for whatever is wrong with them."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)
from parities.tiny_flux2 import TRANSFORMER
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5Tokenizer
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import BadFiles
from underpaint_backend.engine.families import Conditions, Region, family_class
from underpaint_backend.engine.packing import bytes_of
from underpaint_backend.engine.parts import Parts
from underpaint_backend.engine.precision import Memory
from underpaint_backend.engine.residency import Residency
from underpaint_backend.engine.single_file import SingleFileSource
from underpaint_backend.engine.sources import FolderSource
from underpaint_backend.models.recognise import PACKS

from tests.backend.engine.single_files import FolderOnly, config_in, original_sd, without_weights
from tests.backend.engine.tiny import build_tiny, build_tiny_xl
from tests.backend.models import original
from tests.backend.models.weight_files import checkpoint_of

TOLERANCE = 1e-4
"""Relative, on latents. What is left is the order in which numbers are added up."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for an address or opens a connection fails the test, even if they swallow the error."""

    def refused(*arguments: Any, **options: Any) -> Any:
        pytest.fail(f"the network was asked: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def denoised(family: Any, text: str = "a cat") -> Tensor:
    """What a model makes of a prompt, noise and a picture: it takes each of its parts."""
    with torch.inference_mode():
        prompt = family.encode_prompt(text)
        picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
        latents = family.encode(picture)
        region = None
        if family.takes_mask:
            mask = torch.ones(1, 1, *latents.shape[-2:])
            region = Region(latents, mask, torch.ones(1, 1, 64, 64))
        conditions = Conditions(prompt, None, 1.0, (64, 64), region)
        predict = family.predictor(conditions, 1)
        noise = family.noise([torch.Generator().manual_seed(2)], (64, 64))
        answer: Tensor = predict(noise, torch.tensor(500)) + 0.1 * latents
        return torch.cat([answer.flatten(), family.decode(latents).flatten()])


def load(name: str, source: Any) -> Any:
    """The model of a family whose parts are in `source`."""
    return family_class(name).load(source, open_device("cpu"), lambda done: None)


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize(
    ("family", "build"), [("stable_diffusion", build_tiny), ("stable_diffusion_xl", build_tiny_xl)]
)
def test_a_file_is_the_same_model_as_a_folder(
    tmp_path: Path, family: str, build: Callable[[Path, int], Any], channels: int
) -> None:
    """Written in the original layout and read again, a model says the same of everything."""
    folder = build(tmp_path / "folder", channels).folder
    save_file(original_sd(folder), tmp_path / "model.safetensors")
    pack = without_weights(folder, tmp_path / "pack")

    expected = denoised(load(family, FolderSource(folder)))
    found = denoised(load(family, SingleFileSource(tmp_path / "model.safetensors", pack)))

    assert (found - expected).norm() / expected.norm() <= TOLERANCE


@pytest.mark.parametrize("memory", [Memory(precision="fp8"), Memory(offload="group")], ids=["fp8", "group"])
@pytest.mark.parametrize(
    ("family", "build"), [("stable_diffusion", build_tiny), ("stable_diffusion_xl", build_tiny_xl)]
)
def test_a_file_is_kept_small(tmp_path: Path, family: str, build: Callable[[Path, int], Any], memory: Memory) -> None:
    """In 8 bits it says what a folder in 8 bits says, near the plain model. Fetched layer by layer it says the same."""
    folder = build(tmp_path / "folder", 4).folder
    save_file(original_sd(folder), tmp_path / "model.safetensors")
    file = SingleFileSource(tmp_path / "model.safetensors", without_weights(folder, tmp_path / "pack"))

    def kept(source: Any, memory: Memory) -> Any:
        with Residency(open_device("cpu"), memory).shared():
            return load(family, source)

    plain, small = kept(file, Memory()), kept(file, memory)
    expected = denoised(kept(FolderSource(folder), memory))
    found = denoised(small)

    assert (found - expected).norm() / expected.norm() <= TOLERANCE
    change = (found - denoised(plain)).norm() / expected.norm()
    assert 100 * TOLERANCE < change < 0.2 if memory.precision == "fp8" else change <= TOLERANCE
    assert bytes_of(small.parts["unet"]) < 0.4 * bytes_of(plain.parts["unet"])


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Path]:
    """The weights of a tiny Stable Diffusion in the original layout, and its pack."""
    root = tmp_path_factory.mktemp("sd")
    folder = build_tiny(root / "folder", 4).folder
    return original_sd(folder), without_weights(folder, root / "pack")


def test_half_precision_is_made_what_is_calculated_in(sd: tuple[dict[str, Tensor], Path], tmp_path: Path) -> None:
    """Files in fp16 or fp8 are loaded as float32 on a CPU."""
    weights, pack = sd
    for dtype in (torch.float16, torch.float8_e4m3fn):
        file = tmp_path / f"{dtype}.safetensors"
        save_file({name: value.to(dtype) for name, value in weights.items()}, file)
        source = SingleFileSource(file, pack)

        unet = source.network("unet", UNet2DConditionModel, torch.float32)
        text = source.network("text_encoder", CLIPTextModel, torch.float32)

        assert {parameter.dtype for network in (unet, text) for parameter in network.parameters()} == {torch.float32}
        assert not any(parameter.requires_grad for parameter in unet.parameters())
        assert not unet.training


def test_parts_have_bytes_and_identities(sd: tuple[dict[str, Tensor], Path], tmp_path: Path) -> None:
    """The bytes are those of a part alone; two files differ, and so do two parts of one."""
    weights, pack = sd
    for name in "ab":
        save_file(weights, tmp_path / f"{name}.safetensors")
    first, second = (SingleFileSource(tmp_path / f"{name}.safetensors", pack) for name in "ab")

    unet = sum(value.nbytes for name, value in weights.items() if name.startswith("model.diffusion_model."))
    assert first.weight_bytes("unet") == unet
    assert len({first.identity("unet"), first.identity("vae"), second.identity("unet")}) == 3
    assert first.identity("unet") == SingleFileSource(tmp_path / "a.safetensors", pack).identity("unet")
    assert first.has("unet")
    assert not first.has("image_encoder")


def test_what_the_file_lacks_comes_from_the_folder(sd: tuple[dict[str, Tensor], Path], tmp_path: Path) -> None:
    """A file without a VAE paints with that of the folder; without one there, the error says what is missing."""
    weights, pack = sd
    save_file({name: value for name, value in weights.items() if "first_stage" not in name}, tmp_path / "a.safetensors")
    folder = build_tiny(tmp_path / "folder", 4).folder

    vae = SingleFileSource(tmp_path / "a.safetensors", folder).network("vae", AutoencoderKL, torch.float32)
    assert torch.equal(vae.state_dict()["decoder.conv_in.weight"], weights["first_stage_model.decoder.conv_in.weight"])
    with pytest.raises(BadFiles, match=r"a\.safetensors has no vae"):
        SingleFileSource(tmp_path / "a.safetensors", pack).network("vae", AutoencoderKL, torch.float32)


def test_what_an_xl_model_predicts_is_noted_in_the_file(tmp_path: Path) -> None:
    """Trainers say so by empty tensors of these names."""
    folder = build_tiny_xl(tmp_path / "folder", 4).folder
    weights = original_sd(folder)
    for name, marks in {"plain": (), "v": ("v_pred",), "zero": ("v_pred", "ztsnr")}.items():
        save_file(weights | {mark: torch.zeros(0) for mark in marks}, tmp_path / f"{name}.safetensors")

    plain, v, zero = (
        SingleFileSource(tmp_path / f"{name}.safetensors", folder).config("scheduler")
        for name in ("plain", "v", "zero")
    )

    assert plain["prediction_type"] == "epsilon"
    assert (v["prediction_type"], v["rescale_betas_zero_snr"]) == ("v_prediction", False)
    assert zero["rescale_betas_zero_snr"] is True


def lacking(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A UNet without one of its weights."""
    return {name: value for name, value in weights.items() if "middle_block.1.norm.weight" not in name}


def misshapen(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A UNet of another width."""
    name = "model.diffusion_model.time_embed.0.weight"
    return weights | {name: weights[name][:, :-1].contiguous()}


def speechless(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder without its last layer."""
    return {name: value for name, value in weights.items() if "text_model.encoder.layers.1." not in name}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lacking, "unet lacks 1 weights, such as mid_block"),
        (misshapen, "time_embedding.linear_1.weight has the shape"),
        (speechless, "text_encoder lacks 16 weights, such as encoder.layers.1"),
    ],
)
def test_what_is_missing_is_named(
    sd: tuple[dict[str, Tensor], Path],
    tmp_path: Path,
    damage: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    words: str,
) -> None:
    """A file that is sound but not whole is never loaded with made-up weights."""
    weights, pack = sd
    save_file(damage(weights), tmp_path / "model.safetensors")

    with pytest.raises(BadFiles, match=words):
        load("stable_diffusion", SingleFileSource(tmp_path / "model.safetensors", pack))


def cut(path: Path) -> None:
    """Half of the file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled(path: Path) -> None:
    """A pickle under the name of something safe."""
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    torch.save(tensors, path)


def strange(path: Path) -> None:
    """Something else."""
    save_file({"joint_blocks.0.context_block.attn.qkv.weight": torch.zeros(2, 2)}, path)


@pytest.mark.parametrize(("damage", "words"), [(cut, "cut off"), (pickled, "pickle"), (strange, "Stable Diffusion 3")])
def test_bad_files_say_so(
    sd: tuple[dict[str, Tensor], Path], tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    """The error has the name of the file, and not its path; nothing of the file is loaded."""
    weights, pack = sd
    path = tmp_path / "model.safetensors"
    save_file(weights, path)
    damage(path)

    with pytest.raises(BadFiles, match=rf"^model\.safetensors: it is .*{words}") as caught:
        load("stable_diffusion", SingleFileSource(path, pack))
    assert str(tmp_path) not in str(caught.value)


def test_errors_do_not_name_the_folders_of_the_artist(tmp_path: Path) -> None:
    """What other libraries say of a file is told without its path."""
    source = SingleFileSource(tmp_path / "a" / "model.safetensors", tmp_path / "b" / "pack")

    assert source.anonymous(f"cannot read {tmp_path}/a/model.safetensors or {tmp_path}/b/pack/vae") == (
        "cannot read model.safetensors or pack/vae"
    )


# FLUX


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("guided", [True, False])
def test_a_transformer_of_flux2_is_converted(tmp_path: Path, prefix: str, guided: bool) -> None:
    """Every weight comes back to its place."""
    torch.manual_seed(0)
    model = Flux2Transformer2DModel(**TRANSFORMER, guidance_embeds=guided)
    model.save_config(tmp_path / "pack" / "transformer")
    save_file(original.flux2(model.state_dict(), prefix), tmp_path / "model.safetensors")

    source = SingleFileSource(tmp_path / "model.safetensors", tmp_path / "pack")
    found = source.network("transformer", Flux2Transformer2DModel, torch.float32)

    torch.testing.assert_close(found.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_transformer_in_diffusers_own_layout_is_taken_as_it_is(tmp_path: Path) -> None:
    """Some publish that as a single file, too."""
    torch.manual_seed(0)
    model = Flux2Transformer2DModel(**TRANSFORMER)
    model.save_config(tmp_path / "pack" / "transformer")
    save_file(model.state_dict(), tmp_path / "model.safetensors")

    source = SingleFileSource(tmp_path / "model.safetensors", tmp_path / "pack")
    found = source.network("transformer", Flux2Transformer2DModel, torch.float32)

    torch.testing.assert_close(found.state_dict(), model.state_dict(), rtol=0, atol=0)


def write_sparse(path: Path, shapes: dict[str, tuple[int, ...]], marks: dict[str, float]) -> None:
    """A file of zeros in bfloat16, which take no room on the disk, with a mark at the beginning of each tensor."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
        for name, mark in marks.items():
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(struct.pack("<f", mark)[2:])


def test_a_transformer_of_flux1_is_converted(tmp_path: Path) -> None:
    """Of its real width, for diffusers' converter knows no other; one block of each kind is enough."""
    config = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}
    with torch.device("meta"):
        model = FluxTransformer2DModel(**config)
    model.save_config(tmp_path / "pack" / "transformer")
    shapes = {name: tuple(value.shape) for name, value in original.flux1(model.state_dict()).items()}
    marks = {name: float(index + 1) for index, name in enumerate(shapes)}
    write_sparse(tmp_path / "model.safetensors", shapes, marks)

    source = FolderOnly(tmp_path / "model.safetensors", tmp_path / "pack")
    found = source.network("transformer", FluxTransformer2DModel, torch.bfloat16)

    state = found.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        name: tuple(value.shape) for name, value in model.state_dict().items()
    }

    def mark(name: str, row: int = 0) -> float:
        return float(state[name].flatten(1)[row, 0] if state[name].ndim > 1 else state[name][row])

    assert mark("x_embedder.weight") == marks["img_in.weight"]
    assert mark("transformer_blocks.0.attn.to_q.weight") == marks["double_blocks.0.img_attn.qkv.weight"]
    assert mark("transformer_blocks.0.attn.to_k.weight") == 0
    assert mark("transformer_blocks.0.attn.add_q_proj.weight") == marks["double_blocks.0.txt_attn.qkv.weight"]
    assert mark("transformer_blocks.0.attn.norm_k.weight") == marks["double_blocks.0.img_attn.norm.key_norm.scale"]
    assert mark("single_transformer_blocks.0.attn.to_q.weight") == marks["single_blocks.0.linear1.weight"]
    assert mark("single_transformer_blocks.0.proj_out.weight") == marks["single_blocks.0.linear2.weight"]
    # scale and shift change places
    assert mark("norm_out.linear.weight", 3072) == marks["final_layer.adaLN_modulation.1.weight"]
    assert mark("norm_out.linear.weight") == 0


def test_a_sister_lends_what_a_transformer_lacks(tmp_path: Path) -> None:
    """Its configurations are those of its own variant, and not those of the sister."""
    sister = tmp_path / "schnell"
    for part, config in {
        "transformer": {"guidance_embeds": False, "in_channels": 64},
        "vae": {"latent_channels": 16},
        "scheduler": {"shift": 1.0, "use_dynamic_shifting": False},
    }.items():
        (sister / part).mkdir(parents=True)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (sister / part / name).write_text(json.dumps(config))
    config = config_in(PACKS / "flux1-dev" / "transformer")
    with torch.device("meta"):
        model = FluxTransformer2DModel.from_config(config)
    shapes = {name: tuple(value.shape) for name, value in original.flux1(model.state_dict()).items()}
    write_sparse(tmp_path / "flux1-dev.safetensors", shapes, {})

    source = SingleFileSource(tmp_path / "flux1-dev.safetensors", sister)

    assert source.config("transformer")["guidance_embeds"] is True
    assert source.config("scheduler")["use_dynamic_shifting"] is True
    assert source.config("vae") == {"latent_channels": 16}
    assert source.weight_bytes("transformer") == sum(2 * torch.Size(shape).numel() for shape in shapes.values())


# Packs


@pytest.mark.parametrize("variant", ["sd1", "sd1-inpaint", "sdxl", "sdxl-inpaint"])
def test_the_packs_suit_the_families(variant: str, tmp_path: Path) -> None:
    """A file of zeros with the real shapes passes the check of its family, and all of its parts can be built."""
    defaults = json.loads((PACKS / variant / "defaults.json").read_text())
    file = tmp_path / "model.safetensors"
    shapes = {name: tuple(value.shape) for name, value in checkpoint_of(variant).items()}
    write_sparse(file, shapes, {})
    source = SingleFileSource(file, PACKS / variant)
    cls = family_class(defaults["family"])

    cls(Parts(source, open_device("cpu"), cls.networks_in(source))).check()

    assert source.what.pack(file.stem) == PACKS / variant
    for name in ("unet", "vae", "text_encoder"):
        assert source.has(name)
        assert source.weight_bytes(name) > 0
    assert source.config("scheduler")["beta_schedule"] == "scaled_linear"


def test_the_tokenizer_of_the_packs_is_that_of_clip() -> None:
    """The numbers of well-known words, the ends, the padding of each of SDXL's two."""
    source = FolderOnly(Path("none.safetensors"), PACKS / "sdxl")
    first = source.tokenizer("tokenizer", CLIPTokenizer)
    second = source.tokenizer("tokenizer_2", CLIPTokenizer)

    assert first("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert first("Hello, WORLD!").input_ids == [49406, 3306, 267, 1002, 256, 49407]
    assert len(first) == 49408
    assert first.model_max_length == 77
    padded = {"padding": "max_length", "max_length": 8, "truncation": True}
    assert first("cat", **padded).input_ids[-1] == 49407
    assert second("cat", **padded).input_ids[-1] == 0
    assert first("a naïve 猫 🎨").input_ids[-1] == 49407


def test_a_tokenizer_that_nobody_has_is_asked_for(tmp_path: Path) -> None:
    """T5's is not in the packs: the error says where it could come from."""
    with torch.device("meta"):
        model = FluxTransformer2DModel.from_config(config_in(PACKS / "flux1-dev" / "transformer"))
    shapes = {name: tuple(value.shape) for name, value in original.flux1(model.state_dict()).items()}
    write_sparse(tmp_path / "flux1-dev.safetensors", shapes, {})
    source = SingleFileSource(tmp_path / "flux1-dev.safetensors", PACKS / "flux1-dev")

    with pytest.raises(BadFiles, match=r"flux1-dev\.safetensors has no tokenizer_2, and no other FLUX.1 \[dev\]"):
        source.tokenizer("tokenizer_2", T5Tokenizer)
    with pytest.raises(BadFiles, match=r"has no text_encoder_2"):
        source.network("text_encoder_2", CLIPTextModelWithProjection, torch.float32)
