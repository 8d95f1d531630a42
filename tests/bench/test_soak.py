"""A small run of the soak bench."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measuring import measured

ROOM = ("--keep-gib", "0.0625")
"""Less than a hundred jobs send: a small tile takes up 256 KiB, too."""


def test_a_hundred_jobs_leave_no_open_file_behind(tiny_models: Path) -> None:
    """Clients come and go; the daemon's files and threads are as many as before, and its store is bounded."""
    few = ("--jobs", "80", "--warm-up", "20", "--samples", "6", "--painters", "4")
    figure = measured("soak", tiny_models, *few, *ROOM)
    samples = [row for row in figure["rows"] if "daemon" in row and row["what"] == ""]
    assert len(samples) == 6
    assert samples[-1]["files"] == samples[0]["files"]
    assert 60 < samples[-1]["tiles"] <= 64
    assert samples[-1]["daemon"] < 1.25 * samples[0]["daemon"]
