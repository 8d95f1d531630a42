"""What came of the frames, by phase and kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Line:
    """One row of the table."""

    frames: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    others: int = 0
    closes: Counter[str] = field(default_factory=Counter)
    hung: list[str] = field(default_factory=list)
    """Names of the visits that neither were answered nor ended in time."""

    def hang(self, name: str) -> None:
        """A visit hung."""
        self.hung.append(name)


class Tally:
    """Rows by phase and kind."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str], Line] = {}

    def line(self, phase: str, kind: str) -> Line:
        """The row of one kind of visit."""
        return self.lines.setdefault((phase, kind), Line())

    @property
    def frames(self) -> int:
        """All that were sent."""
        return sum(line.frames for line in self.lines.values())

    @property
    def hangs(self) -> int:
        """Connections that neither answered nor closed in time."""
        return len(self.hung)

    @property
    def hung(self) -> list[str]:
        """The names of their visits."""
        return [name for line in self.lines.values() for name in line.hung]

    def rows(self) -> list[dict[str, object]]:
        """The table."""
        return [
            {
                "phase": phase,
                "kind": kind,
                "frames": line.frames,
                "typed errors": line.errors.total(),
                "other answers": line.others,
                "closed": _counts(line.closes),
                "hangs": len(line.hung),
            }
            for (phase, kind), line in sorted(self.lines.items())
        ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} × {count}" for name, count in sorted(counter.items())) or "-"
