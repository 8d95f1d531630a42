"""A small run of the faults bench: real processes, killed and cut off."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measuring import measured


def test_no_job_is_lost_doubled_or_changed_by_ten_faults(tiny_models: Path) -> None:
    """Workers, daemons, clients and connections go; every job ends once, as it does undisturbed."""
    figure = measured("faults", tiny_models, "--jobs", "30", "--faults", "10", "--clients", "3", "--seed", "210")
    counts = {(row["what"], row["which"]): row["count"] for row in figure["rows"]}
    assert figure["value"] == 0, figure["rows"]
    assert counts["faults", "all"] == 10
    assert counts["faults", "worker killed"] >= 1
    assert counts["faults", "daemon killed"] >= 1
    assert counts["jobs ended", "all"] == 30
    assert counts["clients", "language broken"] == counts["clients", "clients that broke"] == 0
    assert counts["in the journal", "running"] == counts["in the journal", "ended"] == 0
