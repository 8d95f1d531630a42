"""Which files of a repository a model needs. Repositories hold the same weights several times, in several formats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from .offers import Source

WEIGHTS = ".safetensors"
INDEX = re.compile(r".+\.safetensors\.index(\.(\w+))?\.json")
TEXTS = (".json", ".txt", ".model", ".jinja")
"""Endings of configurations and tokenizers. Nothing else is ever fetched: no code and no pickles."""


def safe_path(path: str) -> bool:
    """Whether a name from the network stays inside the folder that it is joined to, on every system."""
    parts = path.split("/")
    return (
        0 < len(path) <= 400
        and all(part not in ("", ".", "..") and part.strip(" .") != "" for part in parts)
        and not re.search(r'[\x00-\x1f\x7f\\:*?"<>|]', path)
        and not any(part.endswith((" ", ".")) for part in parts)
    )


def needed(source: Source, paths: Iterable[str]) -> list[str]:
    """Those of `paths` that `source` needs, its configurations first."""
    matching = [path for path in paths if any(_matches(path, pattern) for pattern in source.files)]
    weights = [path for path in matching if path.endswith(WEIGHTS) or INDEX.fullmatch(path)]
    texts = [path for path in matching if path.endswith(TEXTS) and not INDEX.fullmatch(path)]
    return sorted(texts) + sorted(_weights(weights, source))


def lacking(source: Source, paths: Iterable[str]) -> list[str]:
    """The patterns of `source` that none of `paths` matches."""
    found = list(paths)
    return [pattern for pattern in source.files if not any(_matches(path, pattern) for path in found)]


def _matches(path: str, pattern: str) -> bool:
    """A star stands for anything but a slash."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _weights(paths: list[str], source: Source) -> list[str]:
    """In each folder the weights of the variant where there are such, and the plain ones elsewhere."""
    literal = [path for path in paths if path in source.files]
    folders: dict[str, list[str]] = {}
    for path in paths:
        if path not in literal:
            folders.setdefault(str(PurePosixPath(path).parent), []).append(path)
    return literal + [path for files in folders.values() for path in one_variant(files, source.variant)]


def one_variant(paths: list[str], variant: str) -> list[str]:
    """Of weights in one folder those of `variant`, if there are none the plain ones, else those in half precision."""
    by_variant: Mapping[str, list[str]] = {
        wanted: [path for path in paths if _variant_of(path) == wanted] for wanted in {variant, "", "fp16"}
    }
    return by_variant[variant] or by_variant[""] or by_variant["fp16"]


def _variant_of(path: str) -> str:
    """As in model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, model.safetensors.index.fp16.json."""
    index = INDEX.fullmatch(path)
    if index:
        return index[2] or ""
    weights = re.fullmatch(r"[\w-]+\.(\w+?)(-\d+-of-\d+)?\.safetensors", PurePosixPath(path).name)
    return weights[1] if weights else ""
