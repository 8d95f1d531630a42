"""`underpaint models list` and `show`: what is said of models."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from underpaint_protocol.messages import Model

from ...models.catalog import Entry, default_roots, find_models
from ...models.folder_list import folders, loras_folder
from ...models.folders import Contents, folder_entries
from ...models.headers import printable
from ...models.idle_folders import sentences_about_idle
from ...models.meter import in_gb
from ...models.offers import Offer
from .. import own_daemon
from .lookup import entry_called, known_offers

MOST = 5
"""Files of no use of which the list says why, of each folder."""


def list_models(arguments: argparse.Namespace) -> int:
    """Say what is here and what can be fetched."""
    entries = find_models(default_roots())
    print(table(entries, own_daemon.misfits(entries.values())))
    searched = (*loras_folder(), *folders())
    in_folders = files(folder_entries(roots=searched), searched)
    if in_folders:
        print(f"\n{in_folders}")
    idle = list(sentences_about_idle(default_roots()[1], entries.values()))
    if idle:
        print("", *idle, sep="\n")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Say everything about a model."""
    offer, entry = known_offers().get(arguments.model), entry_called(arguments.model)
    misfit = own_daemon.misfits([entry]).get(entry.model.id, "")
    print(description(entry, offer, misfit))
    return 0


def table(entries: Mapping[str, Entry], misfits: Mapping[str, str]) -> str:
    """A line for each model, and below why some cannot be used; `misfits` are reasons of memory by id."""
    rows = [("MODEL", "NAME", "STATE", "SIZE", "LICENCE")]
    rows += [_row(entry, entry.model.id in misfits) for entry in entries.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column == 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join([*cells, row[4]]).rstrip())
    lines += [""] if misfits else []
    lines += [f"{name} does not fit: {reason}." for name, reason in misfits.items()]
    unusable = [entry.model for entry in entries.values() if entry.model.state == "unfit"]
    lines += [""] if unusable else []
    lines += [f"{model.id} cannot be used: {model.detail}." for model in unusable]
    if any(row[2] == "absent" for row in rows):
        lines += ["", "What is absent is fetched with “underpaint models pull MODEL”."]
    return "\n".join(lines)


def files(contents: Contents, searched: Iterable[Path]) -> str:
    """The LoRAs in folders, by the names that they are chosen by, and which files are of no use, by their folders."""
    width = max((len(lora.name) for lora in contents.loras), default=0)
    lines = [f"  {lora.name:{width}}  {lora.what.name}" for lora in contents.loras]
    if lines:
        lines.insert(0, "LoRAs, for “underpaint generate --lora NAME”:")
    for folder in dict.fromkeys(searched):
        broken = [each for each in contents.broken if each.path.is_relative_to(folder)]
        if broken:
            lines.append(f"{count(len(broken), 'file')} in {folder} cannot be used:")
            lines += [
                f"  {printable(str(each.path.relative_to(folder)), 200)}: {each.reason}" for each in broken[:MOST]
            ]
        if len(broken) > MOST:
            lines.append(f"  and {len(broken) - MOST} more")
    return "\n".join(lines)


def description(entry: Entry, offer: Offer | None, misfit: str) -> str:
    """Everything about a model; `misfit` is why it does not fit into the memory that is there, or ""."""
    model = entry.model
    lines = {
        "name": model.name,
        "state": f"{model.state}{': ' if model.detail else ''}{model.detail}",
        **({"does not fit": misfit} if misfit else {}),
        "family": model.family,
        "tasks": ", ".join(task.replace("_", " ") for task in model.tasks),
        "licence": f"{model.licence or 'not known'}{', which has to be accepted on its page' if model.gated else ''}",
        "paints best at": f"{_megapixels(model.native_area)}, sides a multiple of {model.size_multiple} px",
        "steps": f"{model.default_steps}, with guidance {model.default_guidance:g} and {model.default_scheduler}",
        "schedulers": ", ".join(model.schedulers),
        "references": f"up to {model.max_references}" if model.max_references else "none",
    }
    if offer is not None and offer.memory:
        lines["memory"] = ", ".join(f"{in_gb(size)} in {name}" for name, size in offer.memory.items())
    if model.state == "ready":
        place = printable(str(entry.checkpoint or entry.folder), 4096)
        lines["files"] = f"{in_gb(bytes_here(entry))} in {place}"
        lines.update({f"its {part}": str(path) for part, path in entry.elsewhere.items()})
    elif model.download:
        lines["to fetch"] = in_gb(model.download)
    for source in offer.sources if offer is not None else ():
        lines[f"from {source.repository}"] = f"{source.revision}, https://huggingface.co/{source.repository}"
    return "\n".join([model.id, *(f"    {name}: {what}" for name, what in lines.items())])


def bytes_here(entry: Entry) -> int:
    """What a model's files take on the disk. Of a single file, what it borrows is another model's."""
    if entry.checkpoint is not None:
        return entry.checkpoint.stat().st_size if entry.checkpoint.is_file() else 0
    folders = {entry.folder, *entry.elsewhere.values()}
    files = {path.resolve() for folder in folders for path in (folder.rglob("*") if folder.is_dir() else [folder])}
    return sum(path.stat().st_size for path in files if path.is_file())


def count(number: int, noun: str) -> str:
    """As "1 model" and "2 models"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _row(entry: Entry, misfit: bool) -> tuple[str, str, str, str, str]:
    model = entry.model
    size = in_gb(bytes_here(entry)) if model.state == "ready" else in_gb(model.download) if model.download else ""
    licence = f"{model.licence} (to be accepted)" if model.gated else model.licence
    return model.id, model.name, _state(model, misfit), size, licence


def _state(model: Model, misfit: bool) -> str:
    if misfit:
        return "does not fit"
    return "cannot be used" if model.state == "unfit" else model.state


def _megapixels(area: int) -> str:
    number = f"{area / 1e6:.2g}"
    return f"{number} megapixel{'' if number == '1' else 's'}"
