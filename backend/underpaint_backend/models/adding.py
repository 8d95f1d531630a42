"""One's own entries: a repository of the hub, or a folder or a file of this machine, written into `models.toml`.

What a model is tells its `model_index.json`, by the name of its diffusers pipeline.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .headers import printable
from .layout import INDEX, damage_in, files_of, gap_in, read_index, read_object
from .offers import REPOSITORY, Offer, offer_of, own_file, read_offers
from .schedulers import OWN
from .sizes import size_multiple

PAGE = re.compile(rf"https?://(?:huggingface\.co|hf\.co)/({REPOSITORY.pattern})(?:/.*)?", re.ASCII)
"""The page of a repository, as a browser's address line has it."""

DIFFUSION = {"default_steps": 25, "default_scheduler": "dpm++2m", "size_multiple": 8}
FLOW = {"default_steps": 28, "default_scheduler": "euler", "size_multiple": 16, "native_area": 1 << 20}
PAINTING = ["text_to_image", "image_to_image", "inpaint"]

FAMILIES: dict[str, dict[str, Any]] = {
    "stable_diffusion": {**DIFFUSION, "native_area": 512 * 512, "default_guidance": 7.5, "tasks": PAINTING},
    "stable_diffusion_xl": {
        **DIFFUSION,
        "default_steps": 30,
        "native_area": 1 << 20,
        "default_guidance": 5.0,
        "tasks": PAINTING,
    },
    "flux1": {**FLOW, "default_guidance": 3.5, "tasks": PAINTING},
    "flux2": {**FLOW, "default_guidance": 4.0, "tasks": [*PAINTING, "edit"], "max_references": 4},
    "classic": {**FLOW, "default_guidance": 4.0, "schedulers": [OWN], "default_scheduler": OWN},
}
"""What suits the models of a family, where nobody says otherwise."""

PIPELINES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (r"StableDiffusionXLInpaintPipeline", "stable_diffusion_xl", {"default_guidance": 7.5}),
    (r"StableDiffusionXL(Img2Img)?Pipeline", "stable_diffusion_xl", {}),
    (r"StableDiffusion(Img2Img|Inpaint)?Pipeline", "stable_diffusion", {}),
    (r"Flux2Klein(Inpaint)?Pipeline", "flux2", {"default_steps": 50}),
    (r"Flux2Pipeline", "flux2", {"max_references": 6}),
    (r"FluxFillPipeline", "flux1", {"tasks": ["inpaint"], "default_steps": 50, "default_guidance": 30.0}),
    (
        r"FluxKontext(Inpaint)?Pipeline",
        "flux1",
        {
            "tasks": ["edit", "text_to_image", "inpaint"],
            "default_steps": 30,
            "default_guidance": 2.5,
            "max_references": 1,
        },
    ),
    (r"Flux(Img2Img|Inpaint)?Pipeline", "flux1", {}),
)

SCHNELL = {"default_steps": 4, "default_guidance": 1.0}
"""What suits FLUX.1 without an embedding for guidance, as [schnell] is; its pipeline has the same name as [dev]'s."""

STRANGERS = {"Flux2KleinKVPipeline": "its attention is not that of FLUX.2 [klein]"}
"""Pipelines that no family runs as it should, although their names or their parts look like it, and why."""


def describe_pipeline(index: Mapping[str, Any], family: str | None = None) -> dict[str, Any]:
    """The family, the defaults and the files of a model, told from its `model_index.json`.

    Raises `ValueError` if it is none, if nobody can run it and no family is given, or if there is no such family.
    """
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise ValueError("its model_index.json names no pipeline")
    if family is None and name in STRANGERS:
        raise ValueError(f"it is made for {name}, which Underpaint cannot paint with: {STRANGERS[name]}")
    found, special = _family_of(name)
    if family is not None and family != found:
        found, special = family, {}
    if found not in FAMILIES:
        raise ValueError(f"there is no family “{found}”; there are {', '.join(FAMILIES)}")
    table = {"family": found, **FAMILIES[found], **special, "files": files_of(index)}
    if index.get("is_distilled") is True:
        table.update(default_steps=4, default_guidance=1.0)
    table.setdefault("tasks", [_task_of(name)])
    return table


def add(table: Mapping[str, Any]) -> Offer:
    """Write an entry into `models.toml`, in place of an older one of the same id. Raises `ValueError` and `OSError`."""
    offer = offer_of(dict(table), own=True)
    tables = [other for other in _tables() if other["id"] != table["id"]]
    _write([*tables, dict(table)])
    return offer


def forget(name: str) -> None:
    """Take an entry out of `models.toml`. Its files stay. Raises `ValueError` and `OSError`."""
    _write([table for table in _tables() if table["id"] != name])


def _family_of(pipeline: str) -> tuple[str, dict[str, Any]]:
    for pattern, family, special in PIPELINES:
        if re.fullmatch(pattern, pipeline):
            return family, special
    return "classic", {}


def _task_of(pipeline: str) -> str:
    for word, task in (("Inpaint", "inpaint"), ("Edit", "edit"), ("Kontext", "edit"), ("Img2Img", "image_to_image")):
        if word in pipeline:
            return task
    return "text_to_image"


def _tables() -> list[dict[str, Any]]:
    """The entries as they are written. Raises `ValueError` if one of them is wrong: nothing may be lost then."""
    path = own_file()
    if not path.exists():
        return []
    list(read_offers(path, own=True))
    tables: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8")).get("model", [])
    return tables


def _write(tables: list[dict[str, Any]]) -> None:
    path = own_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    try:
        temporary.write_text(HEAD + "".join(_toml(table) for table in tables), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


HEAD = "# One's own models, as “underpaint models add” writes them. docs/models.md tells what can be said here.\n"


def _toml(table: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in table.items() if key != "also"}
    lines = ["", "[[model]]", *(f"{key} = {_value(value)}" for key, value in plain.items())]
    for also in table.get("also", []):
        lines += ["[[model.also]]", *(f"{key} = {_value(value)}" for key, value in also.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """A value as TOML writes it: as JSON does, but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def place_of(where: str) -> Path | str:
    """The folder or the file of this machine that `where` is, or the repository of the hub that it names.

    Raises `ValueError` that says what is wrong with it, and `OSError` if it cannot be looked at.
    """
    if not where:
        raise ValueError("there must be the name of a repository, a folder or a file; it was empty")
    page = PAGE.fullmatch(where)
    path = Path(where).expanduser()
    if page is not None:
        return page[1]
    if path.exists():
        if any("\ud800" <= letter <= "\udfff" for letter in where):  # bytes that are no Unicode
            raise ValueError(f"{printable(path.name, 80)} cannot be written into a list: give it another name")
        return path
    if where.startswith((".", "/", "~")) or not REPOSITORY.fullmatch(where):
        raise ValueError(f"there is no folder or file {where}, and a repository of the hub is written like owner/name")
    return where


def folder_table(name: str, folder: Path, family: str | None = None) -> dict[str, Any]:
    """An entry for a folder in diffusers' layout. Raises `ValueError` if it is none or incomplete, and `OSError`."""
    path = folder / INDEX
    if not path.is_file():
        single = any(folder.glob("*.safetensors"))
        hint = f". Its single files are used with “underpaint models add-folder {folder}”" if single else ""
        raise ValueError(f"{folder} has no {INDEX}, so it is no model in diffusers' layout{hint}")
    described = describe_pipeline(read_index(path.read_bytes()), family)
    gap = gap_in(folder, described["family"])
    if gap:
        raise ValueError(f"{folder} {gap}")
    damage = damage_in(folder)
    if damage:
        raise ValueError(f"{folder}: {damage}")
    del described["files"]
    described = told_by_parts(described, lambda part: _config_in(folder / part / "config.json"))
    return {"id": name, "name": folder.resolve().name, **described, "folder": str(folder.resolve())}


def told_by_parts(table: Mapping[str, Any], config: Callable[[str], Mapping[str, Any] | None]) -> dict[str, Any]:
    """An entry with what the configurations of its parts tell, where the name of the pipeline does not say it.

    `config` is the configuration of a part, or None if there is no such part. Raises what that raises.
    """
    if table["family"] == "flux1" and table["tasks"] == PAINTING:
        transformer = config("transformer")
        return {**table, **({} if transformer is None or transformer.get("guidance_embeds") else SCHNELL)}
    if table["family"] != "classic":
        return dict(table)
    denoisers = (config(part) for part in ("transformer", "unet"))
    denoiser = next((found for found in denoisers if found is not None), None)
    return dict(table) if denoiser is None else {**table, "size_multiple": size_multiple(config("vae"), denoiser)}


def _config_in(path: Path) -> Mapping[str, Any] | None:
    return read_object(path.read_bytes(), path.name) if path.is_file() else None
