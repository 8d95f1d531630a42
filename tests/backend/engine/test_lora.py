"""LoRAs: what they do is what diffusers does with them, and nothing of it is left when they are gone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, StableDiffusionPipeline, StableDiffusionXLPipeline
from parities.tiny_flux1 import build_tiny_flux1
from parities.tiny_flux2 import build_tiny_flux2
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import ModelBroken
from underpaint_backend.engine.families import Conditions, Family, family_class
from underpaint_backend.engine.lora import LoraRack, Worn, WrongLora
from underpaint_backend.engine.precision import Storage
from underpaint_backend.engine.sources import FolderSource

from tests.backend.engine.tiny import build_tiny, build_tiny_xl

RANK = 2


def flux1(folder: Path) -> Path:
    """A tiny FLUX.1 [dev]."""
    return build_tiny_flux1(folder, "dev").folder


def flux2(folder: Path) -> Path:
    """A tiny FLUX.2 [klein]."""
    return build_tiny_flux2(folder, "klein")[0].folder


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "stable_diffusion": lambda folder: build_tiny(folder, 4).folder,
    "stable_diffusion_xl": lambda folder: build_tiny_xl(folder, 4).folder,
    "flux1": flux1,
    "flux2": flux2,
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the tiny model of a family, written once."""
    root = tmp_path_factory.mktemp("lora")

    def folder_of(name: str) -> Path:
        folder = root / name
        return folder if folder.is_dir() else BUILDERS[name](folder)

    return folder_of


@pytest.fixture
def load(folders: Callable[[str], Path]) -> Callable[[str], Family]:
    """Load the tiny model of a family."""
    return lambda name: family_class(name).load(FolderSource(folders(name)), open_device("cpu"), lambda done: None)


@contextmanager
def wearing(rack: LoraRack, family: Family, choices: Sequence[tuple[Path, float]]) -> Iterator[Worn]:
    """The model with LoRAs on, all of its networks dressed."""
    name = type(family).__module__.rpartition(".")[2]
    with rack.worn("Tiny", name, family.parts, choices) as worn:
        for part in family.parts.names:
            worn.dress(part, family.parts[part])
        yield worn


def answer(family: Family) -> Tensor:
    """What the text encoders and the denoiser say to a prompt and to noise."""
    with torch.inference_mode():
        prompt = family.encode_prompt("a cat")
        noise = family.noise([torch.Generator().manual_seed(2)], (64, 64))
        predict = family.predictor(Conditions(prompt, None, 1.0, (64, 64)), 1)
        said = [*prompt, predict(noise, torch.tensor(500.0))]
        return torch.cat([tensor.flatten() for tensor in said])


def layers_of(network: nn.Module, *words: str) -> dict[str, nn.Module]:
    """The layers of a network whose names hold one of these words."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and any(word in name for word in words)
    }


def factors(module: nn.Module, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random LoRA for a layer."""
    assert isinstance(module, nn.Linear | nn.Conv2d)
    out, entering, *kernel = module.weight.shape
    down = torch.randn(RANK, entering, *kernel, generator=generator) / 4
    up = torch.randn(out, RANK, *([1] * len(kernel)), generator=generator) / 4
    return down, up


TEXT = ("q_proj", "v_proj", "out_proj", "fc1")
UNET = ("attn1.to_q", "attn2.to_k", "attn2.to_out.0", "ff.net.0.proj", "proj_in", "resnets.0.conv1", "downsamplers")


def write_peft(path: Path, family: Family, seed: int = 0, **layers: tuple[str, ...]) -> Path:
    """A LoRA as diffusers writes it today, for layers of each part whose names hold these words."""
    generator, written = torch.Generator().manual_seed(seed), {}
    for part, words in layers.items():
        for name, module in layers_of(family.parts[part], *words).items():
            down, up = factors(module, generator)
            written |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
    save_file(written, path)
    return path


KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
KOHYA_XL = {"unet": "lora_unet_", "text_encoder": "lora_te1_text_model_", "text_encoder_2": "lora_te2_"}


def write_kohya(path: Path, family: Family, seed: int = 0, alpha: float = 1.0, **layers: tuple[str, ...]) -> Path:
    """A LoRA as kohya's trainer writes it."""
    generator, written = torch.Generator().manual_seed(seed), {}
    prefixes = KOHYA_XL if "text_encoder_2" in family.parts.names else KOHYA
    for part, words in layers.items():
        for name, module in layers_of(family.parts[part], *words).items():
            down, up = factors(module, generator)
            base = prefixes[part] + name.replace(".", "_")
            written |= {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up}
            written[f"{base}.alpha"] = torch.tensor(alpha)
    save_file(written, path)
    return path


def lora_for(name: str, family: Family, path: Path, seed: int = 0) -> Path:
    """A LoRA for the tiny model of a family."""
    parts: dict[str, dict[str, tuple[str, ...]]] = {
        "stable_diffusion": {"unet": UNET, "text_encoder": TEXT},
        "stable_diffusion_xl": {"unet": UNET, "text_encoder": TEXT, "text_encoder_2": TEXT},
        "flux1": {"transformer": ("attn.to_q", "attn.add_k_proj", "norm1.linear", "proj_mlp")},
        "flux2": {"transformer": ("attn.to_q", "to_qkv_mlp_proj", "linear_in")},
    }
    return write_peft(path, family, seed, **parts[name])


# That they do what they should


@pytest.mark.parametrize("weight", [1.0, -0.7])
@pytest.mark.parametrize("write", [write_peft, write_kohya])
@pytest.mark.parametrize(
    ("name", "pipeline"),
    [("stable_diffusion", StableDiffusionPipeline), ("stable_diffusion_xl", StableDiffusionXLPipeline)],
)
def test_a_lora_does_what_diffusers_does_with_it(
    folders: Callable[[str], Path],
    load: Callable[[str], Family],
    tmp_path: Path,
    name: str,
    pipeline: Any,
    write: Callable[..., Path],
    weight: float,
) -> None:
    """In text encoders and UNet, with each trainer's names and its alphas, as peft calculates it."""
    family = load(name)
    layers: dict[str, tuple[str, ...]] = {"unet": UNET, "text_encoder": TEXT}
    if "xl" in name:
        layers["text_encoder_2"] = TEXT
    path = write(tmp_path / "style.safetensors", family, **layers)
    plain = answer(family)

    with wearing(LoraRack(), family, [(path, weight)]):
        found = answer(family)

    classic = pipeline.from_pretrained(folders(name), local_files_only=True)
    classic.load_lora_weights(str(path), adapter_name="style")
    classic.set_adapters(["style"], [weight])
    for part in layers:
        given = getattr(classic, part)
        family.parts.residency.forget([family.parts.key(part)])
        family.parts.residency.fetch(family.parts.key(part), 0, lambda given=given: given.eval().requires_grad_(False))
    expected = answer(family)
    assert (plain - expected).norm() > 0.01 * expected.norm(), "the LoRA must matter"
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("name", ["flux1", "flux2"])
def test_a_lora_of_a_transformer_does_what_diffusers_does_with_it(
    load: Callable[[str], Family], tmp_path: Path, name: str
) -> None:
    """As peft calculates it."""
    family = load(name)
    path = lora_for(name, family, tmp_path / "style.safetensors")
    plain = answer(family)

    with wearing(LoraRack(), family, [(path, 0.8)]):
        found = answer(family)

    family.parts["transformer"].load_lora_adapter(load_file(path), adapter_name="style")
    family.parts["transformer"].set_adapters(["style"], [0.8])
    expected = answer(family)
    assert (plain - expected).norm() > 0.01 * expected.norm(), "the LoRA must matter"
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("naming", ["lora_unet_", "diffusion_model.", "transformer.", ""])
@pytest.mark.parametrize("name", ["flux1", "flux2"])
def test_original_names_are_understood(load: Callable[[str], Family], tmp_path: Path, name: str, naming: str) -> None:
    """Queries, keys and values of the first authors are one layer; trainers write it with several prefixes."""
    family = load(name)
    generator = torch.Generator().manual_seed(0)
    width = family.parts["transformer"].inner_dim
    down, up = torch.randn(RANK, width, generator=generator), torch.randn(3 * width, RANK, generator=generator)
    base = "double_blocks.0.img_attn.qkv"
    if naming == "lora_unet_":
        base = naming + base.replace(".", "_")
        tensors = {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up, f"{base}.alpha": torch.tensor(1.0)}
        up = up / RANK
    else:
        tensors = {f"{naming}{base}.lora_A.weight": down, f"{naming}{base}.lora_B.weight": up}
    if name == "flux2":  # nothing but its sizes would tell it from FLUX.1, and these are tiny
        other = (
            "lora_unet_single_stream_modulation_lin"
            if naming == "lora_unet_"
            else f"{naming}single_stream_modulation.lin"
        )
        out = family.parts["transformer"].single_stream_modulation.linear.out_features
        half = ("lora_down", "lora_up") if naming == "lora_unet_" else ("lora_A", "lora_B")
        tensors |= {
            f"{other}.{half[0]}.weight": torch.zeros(RANK, width),
            f"{other}.{half[1]}.weight": torch.zeros(out, RANK),
        }
    save_file(tensors, tmp_path / "style.safetensors")

    with wearing(LoraRack(), family, [(tmp_path / "style.safetensors", 0.5)]):
        found = answer(family)

    block = family.parts["transformer"].transformer_blocks[0].attn
    for layer, part in zip((block.to_q, block.to_k, block.to_v), up.chunk(3), strict=True):
        layer.weight += 0.5 * part @ down
    expected = answer(family)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_what_diffusers_noted_of_the_scale_is_heeded(load: Callable[[str], Family], tmp_path: Path) -> None:
    """It is in the header: for all layers, and otherwise for some of them."""
    family = load("stable_diffusion")
    tensors = load_file(write_peft(tmp_path / "plain.safetensors", family, unet=("attn1.to_q", "attn1.to_k")))
    notes = {"unet.r": RANK, "unet.lora_alpha": 3 * RANK, "unet.alpha_pattern": {"attn1.to_k": 5 * RANK}}
    save_file(tensors, tmp_path / "noted.safetensors", metadata={"lora_adapter_metadata": json.dumps(notes)})
    scaled = {
        name: value * (5 if "to_k" in name else 3) if "lora_B" in name else value for name, value in tensors.items()
    }
    save_file(scaled, tmp_path / "scaled.safetensors")

    with wearing(LoraRack(), family, [(tmp_path / "noted.safetensors", 1.0)]):
        found = answer(family)
    with wearing(LoraRack(), family, [(tmp_path / "scaled.safetensors", 1.0)]):
        expected = answer(family)

    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_a_scale_by_the_root_of_the_rank_is_heeded(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Kalajdzievski 2023 (arXiv:2312.03732); it is noted, too."""
    family = load("stable_diffusion")
    tensors = load_file(write_peft(tmp_path / "plain.safetensors", family, unet=("attn1.to_q",)))
    for name, rooted in (("root", True), ("plain", False)):
        notes = {"unet.lora_alpha": 4.0, "unet.use_rslora": rooted}
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata={"lora_adapter_metadata": json.dumps(notes)})

    with wearing(LoraRack(), family, [(tmp_path / "root.safetensors", 1.0)]):
        found = answer(family)
    with wearing(LoraRack(), family, [(tmp_path / "plain.safetensors", RANK**0.5)]):
        expected = answer(family)

    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_flux_is_changed_in_its_text_encoder_too(load: Callable[[str], Family], tmp_path: Path) -> None:
    """In kohya's names; those of the transformer may lack their first word."""
    family = load("flux1")
    text, block = family.parts["text_encoder"], family.parts["transformer"].transformer_blocks[0]
    generator = torch.Generator().manual_seed(0)
    layers = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1": text.encoder.layers[0].mlp.fc1,
        "lora_unet_double_blocks_0_img_attn_proj": block.attn.to_out[0],
    }
    written: dict[str, Tensor] = {}
    for name, module in layers.items():
        down, up = factors(module, generator)
        written |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(2.0)}
    save_file(written, tmp_path / "both.safetensors")
    down, up = factors(block.attn.to_q, generator)
    bare = {"transformer_blocks.0.attn.to_q.lora_A.weight": down, "transformer_blocks.0.attn.to_q.lora_B.weight": up}
    save_file(bare, tmp_path / "bare.safetensors")

    choices = [(tmp_path / "both.safetensors", 1.0), (tmp_path / "bare.safetensors", 1.0)]
    with wearing(LoraRack(), family, choices) as worn:
        assert set(worn.marks) == {"text_encoder", "transformer"}
        found = answer(family)

    for name, module in layers.items():
        module.weight += written[f"{name}.lora_up.weight"] @ written[f"{name}.lora_down.weight"]
    block.attn.to_q.weight += up @ down
    expected = answer(family)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_original_names_may_have_alphas(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Half of the rank is half of the change."""
    family = load("flux1")
    base = "diffusion_model.double_blocks.0.img_attn.proj"
    down, up = factors(family.parts["transformer"].transformer_blocks[0].attn.to_out[0], torch.Generator())
    tensors = {f"{base}.lora_A.weight": down, f"{base}.lora_B.weight": up}
    save_file(tensors, tmp_path / "plain.safetensors")
    save_file(tensors | {f"{base}.alpha": torch.tensor(RANK / 2)}, tmp_path / "half.safetensors")

    with wearing(LoraRack(), family, [(tmp_path / "half.safetensors", 1.0)]):
        found = answer(family)
    with wearing(LoraRack(), family, [(tmp_path / "plain.safetensors", 0.5)]):
        expected = answer(family)

    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_several_loras_add_up(load: Callable[[str], Family], tmp_path: Path) -> None:
    """The order in which they are chosen does not matter but for rounding; the same one twice counts twice."""
    family = load("stable_diffusion")
    first, second = (lora_for("stable_diffusion", family, tmp_path / f"{seed}.safetensors", seed) for seed in range(2))
    rack = LoraRack()

    def with_(*choices: tuple[Path, float]) -> Tensor:
        with wearing(rack, family, choices):
            return answer(family)

    both, reverse = with_((first, 0.5), (second, 0.3)), with_((second, 0.3), (first, 0.5))
    assert (both - reverse).norm() <= 1e-5 * both.norm()
    assert (both - with_((first, 0.5))).norm() > 1e-3 * both.norm()
    twice, double = with_((first, 0.5), (first, 0.5)), with_((first, 1.0))
    assert (twice - double).norm() <= 1e-5 * double.norm()


# That nothing is left


@pytest.mark.parametrize("name", BUILDERS)
def test_nothing_is_left_of_a_lora(load: Callable[[str], Family], tmp_path: Path, name: str) -> None:
    """After the job, or with a weight of 0, the model is what it was, to the bit; so are its modules."""
    family = load(name)
    path = lora_for(name, family, tmp_path / "style.safetensors")
    rack = LoraRack()
    plain = answer(family)
    before = [(type(module), len(module._forward_hooks)) for network in family.networks for module in network.modules()]

    with wearing(rack, family, [(path, 0.9)]) as worn:
        changed = answer(family)
        assert worn.marks
        assert family.parts.marks == worn.marks
    assert torch.equal(answer(family), plain)
    with wearing(rack, family, [(path, 0.0)]):
        assert torch.equal(answer(family), plain)
        assert family.parts.marks == {}

    assert not torch.equal(changed, plain)
    assert family.parts.marks == {}
    after = [(type(module), len(module._forward_hooks)) for network in family.networks for module in network.modules()]
    assert after == before


def test_two_jobs_alternate(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Each gets its own each time, to the bit, and files are read once."""
    family = load("stable_diffusion")
    paths = [lora_for("stable_diffusion", family, tmp_path / f"{seed}.safetensors", seed) for seed in range(2)]
    rack = LoraRack()

    def job(index: int) -> Tensor:
        with wearing(rack, family, [(paths[index], 0.7)]):
            return answer(family)

    first = [job(0), job(1)]
    for path in paths:  # what is read again would be another one now
        stamp = path.stat()
        path.write_bytes(bytes(stamp.st_size))
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    for index in (0, 1, 0, 1):
        assert torch.equal(job(index), first[index])
    assert not torch.equal(first[0], first[1])


def test_a_job_that_fails_leaves_nothing(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Not even a cancelled one, whose exception is none that libraries catch."""
    family = load("stable_diffusion")
    path = lora_for("stable_diffusion", family, tmp_path / "style.safetensors")
    plain = answer(family)

    with pytest.raises(KeyboardInterrupt), wearing(LoraRack(), family, [(path, 1.0)]):
        raise KeyboardInterrupt

    assert torch.equal(answer(family), plain)
    assert family.parts.marks == {}


def test_a_network_that_is_read_again_is_dressed_again(load: Callable[[str], Family], tmp_path: Path) -> None:
    """In the middle of a job it may have had to make room. To dress one twice is to dress it once."""
    family = load("stable_diffusion")
    path = lora_for("stable_diffusion", family, tmp_path / "style.safetensors")

    with wearing(LoraRack(), family, [(path, 1.0)]) as worn:
        expected = answer(family)
        family.parts.residency.clear()
        assert not torch.equal(answer(family), expected)
        for _ in range(2):
            for part in family.parts.names:
                worn.dress(part, family.parts[part])
        assert torch.equal(answer(family), expected)


@pytest.mark.parametrize("storage", [Storage.FP8, Storage.FETCHED])
def test_a_model_with_packed_weights_wears_loras(
    load: Callable[[str], Family], tmp_path: Path, storage: Storage
) -> None:
    """They are added to what its layers say, whatever these are kept in: as much as to weights in full, nearly."""
    family = load("stable_diffusion")
    path = lora_for("stable_diffusion", family, tmp_path / "style.safetensors")
    rack = LoraRack()
    with wearing(rack, family, [(path, 0.5)]):
        in_full = answer(family)

    family.parts.storage = storage
    plain = answer(family)
    with wearing(rack, family, [(path, 0.5)]):
        changed = answer(family)

    assert (changed - in_full).norm() <= 0.1 * in_full.norm()  # on a CPU, text encoders have 8 bits in both
    assert (changed - plain).norm() > 0.2 * plain.norm()
    assert torch.equal(answer(family), plain)


# Bounds


def test_the_lora_used_least_recently_makes_room(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Beyond the number, or the bytes."""
    family = load("stable_diffusion")
    paths = {
        name: lora_for("stable_diffusion", family, tmp_path / f"{name}.safetensors", seed)
        for seed, name in enumerate("abc")
    }
    size = sum(value.nbytes for value in load_file(paths["a"]).values())
    for rack in (LoraRack(most=2), LoraRack(most_bytes=2 * size)):
        for name in "abac":
            with wearing(rack, family, [(paths[name], 1.0)]):
                pass
        assert rack.held == ("a", "c")
        assert rack.bytes == 2 * size


def test_those_of_a_job_stay_whatever_they_take(load: Callable[[str], Family], tmp_path: Path) -> None:
    """A job with more than are kept works; afterwards the next job's make room."""
    family = load("stable_diffusion")
    paths = [lora_for("stable_diffusion", family, tmp_path / f"{seed}.safetensors", seed) for seed in range(3)]
    rack = LoraRack(most=1)
    roomy = LoraRack()
    choices = [(path, 0.2) for path in paths]

    with wearing(rack, family, choices):
        found = answer(family)
        assert len(rack.held) == 3
    with wearing(roomy, family, choices):
        assert torch.equal(answer(family), found)
    with wearing(rack, family, choices[:1]):
        assert rack.held == ("0",)
    assert rack.let_go()
    assert (rack.held, rack.bytes) == ((), 0)


def test_where_memory_is_short_those_that_are_idle_go(load: Callable[[str], Family], tmp_path: Path) -> None:
    """They make room with idle models, and those that the job wears stay; the answer is the same."""
    family = load("stable_diffusion")
    residency = family.parts.residency
    first, second = (lora_for("stable_diffusion", family, tmp_path / f"{seed}.safetensors", seed) for seed in range(2))
    rack = LoraRack()
    residency.let_go = rack.let_go
    with wearing(rack, family, [(first, 1.0)]):
        pass

    with wearing(rack, family, [(second, 1.0)]):
        expected = answer(family)
        assert residency.evict(keep=family.parts.identities())
        assert rack.held == ("1",)
        assert torch.equal(answer(family), expected)
        assert not residency.evict(keep=family.parts.identities())


def test_a_file_that_was_changed_is_read_again(load: Callable[[str], Family], tmp_path: Path) -> None:
    """As when somebody trains on."""
    family = load("stable_diffusion")
    path = lora_for("stable_diffusion", family, tmp_path / "style.safetensors", 0)
    rack = LoraRack()
    with wearing(rack, family, [(path, 1.0)]):
        before = answer(family)
    shutil.copy(lora_for("stable_diffusion", family, tmp_path / "better.safetensors", 1), path)

    with wearing(rack, family, [(path, 1.0)]):
        assert not torch.equal(answer(family), before)


# What is wrong with them


@pytest.mark.parametrize(
    ("model", "made_for", "words"),
    [
        ("stable_diffusion", "stable_diffusion_xl", "made for SDXL, not for Tiny"),
        ("stable_diffusion", "flux1", "made for FLUX.1, not for Tiny"),
        ("stable_diffusion_xl", "stable_diffusion", "made for Stable Diffusion 1.5, not for Tiny"),
        ("flux1", "flux2", "made for FLUX.2, not for Tiny"),
        ("flux2", "flux1", "made for FLUX.1, not for Tiny"),
    ],
)
def test_a_lora_of_another_family_is_refused(
    load: Callable[[str], Family], tmp_path: Path, model: str, made_for: str, words: str
) -> None:
    """With both names, and before anything is done; the model works on."""
    path = lora_for(made_for, load(made_for), tmp_path / "style.safetensors")
    family = load(model)
    plain = answer(family)
    rack = LoraRack()

    with pytest.raises(WrongLora) as caught, wearing(rack, family, [(path, 1.0)]):
        pass

    assert caught.value.info.code == "wrong_lora"
    assert "“style”" in caught.value.info.message
    assert words in caught.value.info.message
    assert rack.held == ()
    assert torch.equal(answer(family), plain)


HALVES = ("lora_A", "lora_B")


def test_a_lora_of_an_unknown_family_is_refused_by_name(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Of what was seen."""
    tensors = {f"transformer.joint_blocks.0.attn.qkv.{half}.weight": torch.zeros(2, 2) for half in HALVES}
    save_file(tensors, tmp_path / "style.safetensors")
    family = load("stable_diffusion")

    choices = [(tmp_path / "style.safetensors", 1.0)]
    with pytest.raises(WrongLora, match="made for Stable Diffusion 3, not for Tiny"):
        wearing(LoraRack(), family, choices).__enter__()


def test_a_lora_of_another_size_is_refused(load: Callable[[str], Family], tmp_path: Path) -> None:
    """The family is right, and the layers are not."""
    family = load("stable_diffusion")
    path = write_peft(tmp_path / "style.safetensors", family, unet=("attn1.to_q",))
    tensors = load_file(path)
    save_file({name: value.repeat(2, 2) for name, value in tensors.items()}, tmp_path / "wide.safetensors")
    at_embedding = {f"text_encoder.embeddings.token_embedding.{half}.weight": torch.zeros(2, 2) for half in HALVES}
    save_file(at_embedding, tmp_path / "words.safetensors")
    deep = {name.replace("down_blocks.0", "down_blocks.7"): value for name, value in tensors.items()}
    save_file(deep, tmp_path / "deep.safetensors")
    plain = answer(family)

    for name, words in {"wide": "another size of", "deep": "another kind of", "words": "another size of"}.items():
        choices = [(path, 1.0), (tmp_path / f"{name}.safetensors", 1.0)]
        with pytest.raises(WrongLora, match=words), wearing(LoraRack(), family, choices):
            pass
        assert torch.equal(answer(family), plain)


def cut(path: Path) -> None:
    """Half of it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled(path: Path) -> None:
    """What could run anything."""
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    torch.save(tensors, path)


def gone(path: Path) -> None:
    """Nothing."""
    path.unlink()


def halved(path: Path) -> None:
    """Only the half of it that reduces."""
    tensors = {name: value.clone() for name, value in load_file(path).items() if "lora_A" in name}
    save_file(tensors, path)


def overfull(path: Path) -> None:
    """With something that no LoRA has."""
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    save_file(tensors | {"unet.conv_in.weight": torch.zeros(2, 2)}, path)


def no_lora(path: Path) -> None:
    """A whole UNet."""
    save_file({"conv_in.weight": torch.zeros(32, 4, 3, 3), NAME: torch.zeros(8, 768)}, path)


NAME = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cut off"),
        (pickled, "pickle"),
        (gone, "No such file"),
        (halved, "a form that is not known"),
        (overfull, "a form that is not known"),
        (no_lora, "it is no LoRA but Stable Diffusion 1.5"),
    ],
)
def test_bad_files_say_so(
    load: Callable[[str], Family], tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    """In the words of the table, with the name of the LoRA and not with its path."""
    family = load("stable_diffusion")
    path = write_peft(tmp_path / "style.safetensors", family, unet=("attn1.to_q",))
    damage(path)

    with pytest.raises(ModelBroken, match=words) as caught, wearing(LoraRack(), family, [(path, 1.0)]):
        pass
    assert "“style”" in caught.value.info.message
    assert str(tmp_path) not in caught.value.info.message


def test_a_lora_of_dev_suits_its_sisters(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """[schnell] has no layer for guidance and [Fill] has wider tokens: what they have is changed."""
    generator = torch.Generator().manual_seed(0)
    written = {}
    layers = {
        "x_embedder": (32, 64),
        "time_text_embed.guidance_embedder.linear_1": (32, 256),
        "transformer_blocks.0.attn.to_q": (32, 32),
    }
    for name, (out, entering) in layers.items():
        written[f"transformer.{name}.lora_A.weight"] = torch.randn(RANK, entering, generator=generator)
        written[f"transformer.{name}.lora_B.weight"] = torch.randn(out, RANK, generator=generator)
    save_file(written, tmp_path / "style.safetensors")

    for variant in ("schnell", "fill"):
        folder = build_tiny_flux1(tmp_path / variant, variant).folder
        family = family_class("flux1").load(FolderSource(folder), open_device("cpu"), lambda done: None)
        network: FluxTransformer2DModel = family.parts["transformer"]
        tokens = torch.randn(1, 3, network.config.in_channels, generator=generator)
        with torch.inference_mode():
            plain = network.x_embedder(tokens)
            with wearing(LoraRack(), family, [(tmp_path / "style.safetensors", 1.0)]):
                changed = network.x_embedder(tokens)
        down = written["transformer.x_embedder.lora_A.weight"]
        expected = plain + tokens[..., :64] @ down.T @ written["transformer.x_embedder.lora_B.weight"].T
        torch.testing.assert_close(changed, expected)
