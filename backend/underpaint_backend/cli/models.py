"""`underpaint models`: what can be painted with here."""

from __future__ import annotations

import argparse

from ..models.catalog import default_roots, find_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`models` has no options."""


def run(arguments: argparse.Namespace) -> int:
    """Print one line for each model."""
    for entry in find_models(default_roots()).values():
        model = entry.model
        print(f"{model.id:24} {model.name:32} {', '.join(model.tasks):28} {model.licence}")
    return 0
