"""How every measurement is printed: a table, and a last line that other programs can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Figure:
    """One measured value with its goal, and the rows behind it."""

    name: str
    value: float
    unit: str
    goal: str
    rows: Sequence[Mapping[str, object]] = field(default_factory=tuple)


def show(figure: Figure, as_json: bool = False) -> None:
    """Print the rows as a table and `NAME: VALUE UNIT (goal GOAL)` as the last line, or all of it as JSON."""
    if as_json:
        print(json.dumps(asdict(figure)))
        return
    for line in _table(figure.rows):
        print(line)
    goal = f"{figure.goal} {figure.unit}".strip()
    print(f"{figure.name}: {_words(figure.value)} {figure.unit} (goal {goal})")


def _table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    if not rows:
        return []
    columns = list(rows[0])
    cells = [columns, *([_words(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _words(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
