"""What nobody foresaw in a folder of models or in one's own entries, each with what is said of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.backend.models.things import TABLE, model_index
from tests.backend.models.weight_files import checkpoint_of, write

DEEP = "[" * 200_000
OWN = """[[model]]
id = "{id}"
family = "stable_diffusion"
name = "Mine"
tasks = ["text_to_image"]
native_area = 65536
size_multiple = 8
default_steps = 4
default_guidance = 1.0
default_scheduler = "ddim"
{more}
"""
BRUSH = 'repository = "artist/brush"\nfiles = ["model_index.json", "*/*"]\n'


def own(id: str, more: str = BRUSH) -> str:
    """An entry as it is written into models.toml."""
    return OWN.format(id=id, more=more)


def layer(down: str, up: str) -> dict[str, tuple[int, ...]]:
    """Both halves of a layer of a LoRA."""
    return {f"{down}.lora_A.weight": (4, 8), f"{up}.lora_B.weight": (8, 4)}


def described(folder: Path, name: str) -> Path:
    """A model of one's own in a folder in diffusers' layout."""
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_bytes(model_index("unet", "vae", "text_encoder"))
    for part in ("vae", "text_encoder"):
        write(folder / part / "model.safetensors", {"a": (1,)})
        (folder / part / "config.json").write_text("{}")
    table = {key: value for key, value in TABLE.items() if key not in ("repository", "files", "variant")}
    (folder / "underpaint.json").write_text(json.dumps({**table, "id": name}))
    return folder


def _scalar(home: Path, folder: Path) -> None:
    layers = layer("double_blocks.0.img_mlp.0", "double_blocks.0.img_mlp.0")
    write(folder / "scalar.safetensors", {**layers, "double_blocks.0.img_mlp.0.lora_B.weight": ()})


def _no_unicode(home: Path, folder: Path) -> None:
    path = write(folder / "plain.safetensors", checkpoint_of("sd1"))
    os.rename(path, os.fsencode(folder) + b"/caf\xe9\x1b[2J.safetensors")
    path = write(folder / "plain.safetensors", layer("lora_unet_down_blocks_0", "lora_unet_down_blocks_0"))
    os.rename(path, os.fsencode(folder) + b"/ink\xe9\x1b[2J.safetensors")


def _many_digits(home: Path, folder: Path) -> None:
    block = f"double_blocks.{'9' * 900}.img_mlp.0"
    write(folder / "digits.safetensors", layer(block, block))


def _more_digits(home: Path, folder: Path) -> None:
    block = f"double_blocks.{'9' * 5000}.img_mlp.0"
    write(folder / "digits.safetensors", layer(block, block))


def _deep_config(home: Path, folder: Path) -> None:
    (described(home / "models" / "deep", "deep") / "unet" / "config.json").write_text(DEEP)


def _deep_description(home: Path, folder: Path) -> None:
    (described(home / "models" / "deep", "deep") / "underpaint.json").write_text(DEEP)


def _deep_index_of_weights(home: Path, folder: Path) -> None:
    part = described(folder / "deep", "deep") / "unet"
    (part / "diffusion_pytorch_model.safetensors.index.json").write_text(DEEP)
    _add(home, own("deep", f'folder = "{folder / "deep"}"'))


def _deep_index(home: Path, folder: Path) -> None:
    (described(folder / "deep", "deep") / "model_index.json").write_text(DEEP)
    _add(home, own("deep", f'folder = "{folder / "deep"}"'))


def _deep_lender(home: Path, folder: Path) -> None:
    """A model that could lend a text encoder, did anybody know what it is."""
    lender = described(home / "models" / "deep", "deep")
    (lender / "unet" / "config.json").write_text(DEEP)
    lacks = {name: value for name, value in checkpoint_of("sd1").items() if "diffusion_model" in name}
    write(folder / "borrows.safetensors", lacks)


def _infinite(home: Path, folder: Path) -> None:
    _add(home, own("odd", BRUSH + "parameters = { denoiser = inf }"))


def _huge(home: Path, folder: Path) -> None:
    _add(home, own("odd", BRUSH + f"parameters = {{ denoiser = {'9' * 400} }}"))


def _nul_in_file(home: Path, folder: Path) -> None:
    _add(home, own("odd", r'file = "/a\u0000b"'))


def _nul_in_folder(home: Path, folder: Path) -> None:
    _add(home, own("odd", r'folder = "/a\u0000b"'))


def _nul_in_folders(home: Path, folder: Path) -> None:
    paths = json.loads((home / "folders.json").read_text())
    (home / "folders.json").write_text(json.dumps(["/a\0b", "/\ud800", *paths]))


def _long_name(home: Path, folder: Path) -> None:
    _add(home, own("odd", f'file = "/{"a" * 5000}.safetensors"') + own("odder", f'folder = "/{"a" * 5000}"'))


def _quadratic(home: Path, folder: Path) -> None:
    name = "transformer_blocks.0.attn_to_q_processor" * 4000
    write(folder / "slow.safetensors", {f"{name}.lora_A.weight": (4, 8)})


def _surrogate(home: Path, folder: Path) -> None:
    write(folder / "stranger.safetensors", {"a\ud800b": (1,)})


def _escape(home: Path, folder: Path) -> None:
    write(folder / "stranger.safetensors", {"a\x1b[2Jb": (1,)})


def _add(home: Path, entries: str) -> None:
    """Write entries before those that are there."""
    path = home / "models.toml"
    path.write_text(entries + path.read_text())


Plant = Callable[[Path, Path], Any]

PLANTED: Mapping[str, Plant] = {
    "scalar": _scalar,
    "no_unicode": _no_unicode,
    "many_digits": _many_digits,
    "more_digits": _more_digits,
    "deep_config": _deep_config,
    "deep_description": _deep_description,
    "deep_index_of_weights": _deep_index_of_weights,
    "deep_index": _deep_index,
    "deep_lender": _deep_lender,
    "infinite": _infinite,
    "huge": _huge,
    "nul_in_file": _nul_in_file,
    "nul_in_folder": _nul_in_folder,
    "nul_in_folders": _nul_in_folders,
    "long_name": _long_name,
    "quadratic": _quadratic,
    "surrogate": _surrogate,
    "escape": _escape,
}
"""What is put into the data folder `home` and the added folder, by what is odd in it."""
