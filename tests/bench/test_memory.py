"""The bench of the memory ladder: a small run of it, and what it counts."""

from __future__ import annotations

import sys

import pytest
from memory import BOUNDS, between, count_of, measure, row_for

LACKING = "There was not enough memory for this picture: it needed 11 MB more, and 26 MB were free."


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")
def test_pictures_are_made_with_less_memory_and_below_it_the_numbers_are_said() -> None:
    """With less memory, weights are kept in 8 bits and pictures stay near; with nearly none, there are numbers."""
    free, short, nothing = measure([200, 20], side=64).rows

    assert (free["rungs"], free["holds"]) == ("-", "yes")
    assert "fp8" in str(short["rungs"])
    assert short["holds"] == "yes"
    assert float(short["apart, of 255"]) > 0  # type: ignore[arg-type]
    assert nothing["holds"] == ""
    assert count_of([free, short, nothing]) >= 1


def rows(*found: tuple[str, float | None]) -> list[dict[str, object]]:
    """Runs on these rungs, with pictures so far off, and none at the end."""
    runs = [row_for("9", {"reached": words.split(), "error": None}, apart) for words, apart in found]
    return [*runs, row_for("1", {"reached": ["fetched"], "error": LACKING}, None)]


def test_a_rung_counts_if_its_pictures_are_near_enough() -> None:
    """All of them; one that ended in an error is none."""
    assert count_of(rows(("evict tile", 1.0), ("evict split", 0.01))) == 3
    assert count_of(rows(("evict tile", 1.0), ("evict split", 0.2))) == 1
    assert count_of(rows(("evict", 0.0), ("tile fp8", BOUNDS["tile"] + BOUNDS["fp8"] + 0.1))) == 1
    assert count_of(rows(("fp8 fetched", BOUNDS["fetched"] + 0.1))) == 0
    assert count_of(rows()) == 0


def test_nothing_counts_without_numbers_at_the_end() -> None:
    """The last run has to fail, and to say how much was missing."""
    enough = rows(("evict", 0.0))
    assert count_of(enough) == 1
    assert count_of(enough[:-1]) == 0
    assert (
        count_of([*enough, row_for("1", {"reached": [], "error": "it needed more memory, and 7 MB were free"}, None)])
        == 0
    )


def test_a_rung_that_was_passed_over_is_looked_for_in_between() -> None:
    """Until it is found, or until there is nothing in between."""

    def found(*runs: tuple[int, str]) -> dict[int, dict[str, object]]:
        return {limit: row_for(str(limit), {"reached": words.split(), "error": None}, 0.0) for limit, words in runs}

    ends = (400, "evict tile"), (100, "evict tile fp8")
    assert between(found(*ends), "alone") == 200
    assert between(found(*ends, (200, "evict tile fp8")), "alone") == 283
    assert between(found(*ends, (200, "evict split")), "alone") == 141
    assert between(found(*ends, (200, "evict alone")), "alone") is None
    failed = row_for("50", {"reached": ["alone", "fetched"], "error": LACKING}, None)
    assert between({**found(*ends), 50: failed}, "alone") == 200
    assert between(found(*ends), "fetched") is None
    assert between(found((101, "split"), (100, "fp8")), "alone") is None
    assert between(found((21, "split"), (20, "fp8")), "alone") is None
    assert between(found((100, "split"), (200, "fp8")), "alone") is None
