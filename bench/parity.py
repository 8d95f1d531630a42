"""Every family of models, task and scheduler: our latents beside the classic pipeline's, and previews beside the truth.

The models are tiny, with random weights, and built from the real configurations: all is there but the size. Where
diffusers has no pipeline for a row, the other side is a loop that is written out for it. A preview is compared where
the denoiser's network answers perfectly, and all around it is the product's: each step's preview has to be the truth.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Iterator

import parities
import torch
from parities import MOST_DIFFERENCE, MOST_PREVIEW_ERROR, Case
from report import Figure, show


def main() -> None:
    """Measure every row and print the worst difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORDS", help="rows whose name holds this")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    show(measure(arguments.only), arguments.json)


def measure(only: str = "") -> Figure:
    """One row for each case, the worst last."""
    rows: list[dict[str, object]] = []
    worst = worst_preview = 0.0
    for case in cases():
        if only not in case.name:
            continue
        found = case.measure()
        worst, worst_preview = max(worst, found.difference), max(worst_preview, found.preview_error)
        fine = found.difference <= MOST_DIFFERENCE and found.preview_error <= MOST_PREVIEW_ERROR
        rows.append(row(case.family, case.task, case.scheduler, found.difference, found.preview_error, fine))
    within = worst <= MOST_DIFFERENCE and worst_preview <= MOST_PREVIEW_ERROR
    rows.append(row(f"worst of {len(rows)}", "", "", worst, worst_preview, within))
    return Figure("parity", worst, "relative difference", f"<= {MOST_DIFFERENCE}", rows)


def cases() -> Iterator[Case]:
    """The cases of every module of `parities` that has some."""
    for module in pkgutil.iter_modules(parities.__path__):
        found = importlib.import_module(f"parities.{module.name}")
        if hasattr(found, "cases"):
            yield from found.cases()


def row(family: str, task: str, scheduler: str, difference: float, preview: float, fine: bool) -> dict[str, object]:
    """One line of the table."""
    return {
        "family": family,
        "task": task,
        "scheduler": scheduler,
        "difference": f"{difference:.1e}",
        "preview error": f"{preview:.1e}",
        "within bounds": "yes" if fine else "NO",
    }


if __name__ == "__main__":
    main()
