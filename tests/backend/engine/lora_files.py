"""LoRAs with random weights for tiny models, in the forms in which trainers write them, and models that wear them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from parities.tiny_flux1 import build_tiny_flux1
from parities.tiny_flux2 import build_tiny_flux2
from safetensors.torch import save_file
from torch import Tensor, nn
from underpaint_backend.engine.families import Conditions, Family
from underpaint_backend.engine.lora import LoraRack, Worn

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


def spoil(*paths: Path) -> None:
    """Fill files with zeros so that nobody notices: what is read again now is broken, what is in memory is not."""
    for path in paths:
        stamp = path.stat()
        path.write_bytes(bytes(stamp.st_size))
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


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
