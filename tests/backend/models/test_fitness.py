"""Whether a model fits into the memory that is there, and what is said where it does not."""

from __future__ import annotations

import pytest
from underpaint_backend.models.fitness import Choice, Room, fitness, fitted, peak_bytes

from tests.backend.models.things import known, offer

GB = 1_000_000_000


def test_memory_is_that_of_the_larger_half() -> None:
    """The prompt is encoded before painting begins, so the two are never there together."""
    memory = peak_bytes(11.9, 4.9, 0.1)
    assert memory == {"bf16": 24 * GB, "fp8": round(12.1 * GB), "nf4": round((11.9 * 0.5625 + 0.2) * GB)}
    assert peak_bytes(1, 24, 0)["bf16"] == 48 * GB


def cpu(total: float) -> Room:
    """A machine without a graphics card, with so many GiB of which 3 are free."""
    return Room(3 << 30, int(total * (1 << 30)), on_cpu=True)


def card(total: float, ram: float) -> Room:
    """A graphics card with so many GiB, in a machine with so many."""
    return Room(int(total * (1 << 30)), int(total * (1 << 30)), int(ram * (1 << 30)), int(ram * (1 << 30)))


def test_what_does_not_fit_is_told_with_numbers() -> None:
    """At the smallest precision that every install has; what others use now does not count."""
    model = known()["flux1:dev"].model
    assert fitness(model, Room(0, 24 * GB, on_cpu=True)) == ""
    assert fitness(model, Room(1 * GB, 12 * GB, on_cpu=True)) == ""
    reason = fitness(model, cpu(8))
    assert reason == "it needs 11.2 GiB of memory at least, and there are 8.0 GiB, 3.0 GiB of them free"
    assert fitness(model, cpu(8), Choice("nf4")) == ""
    for precision in ("fp8", "int8"):
        assert fitness(model, cpu(8), Choice(precision)) == reason
    assert fitted(known()["sd15"].model, "").state == "absent"
    large = fitted(model, reason)
    assert (large.state, large.detail) == ("unfit", reason)


@pytest.mark.parametrize(
    ("model", "room", "choice", "needs"),
    [
        ("flux2-klein:4b", cpu(6), Choice("float32", "none"), "15.3"),
        ("flux2-klein:4b", cpu(6), Choice("bfloat16"), "7.6"),
        ("flux2-klein:4b", cpu(6), Choice("float16", "none"), "7.6"),
        ("flux2-klein:4b", cpu(6), Choice(), ""),
        ("flux2-klein:4b", cpu(32), Choice("auto", "none", 3 << 30), "3.8"),
        ("flux2-klein:4b", cpu(32), Choice("auto", "auto", 3 << 30), ""),  # the rest is read from the disk
        ("flux1:dev", cpu(8), Choice("auto", "group"), ""),
        ("flux1:dev", cpu(8), Choice("bfloat16", "group"), ""),
        ("flux1:dev", card(8, 32), Choice(), ""),
        ("flux1:dev", card(8, 32), Choice("auto", "none"), "11.2"),
        ("flux1:dev", card(12, 32), Choice("auto", "none"), ""),
        ("flux1:dev", card(12, 32), Choice("auto", "none", 8 << 30), "11.2"),
        ("flux1:dev", card(12, 6), Choice(), ""),
        ("flux1:dev", card(12, 6), Choice("auto", "auto", 4 << 30), "11.2"),
        ("flux1:dev", card(8, 8), Choice("auto", "group"), "22.3"),  # what waits in RAM is not packed
        ("flux1:dev", card(8, 16), Choice("auto", "group"), ""),
    ],
)
def test_whether_a_model_fits_heeds_what_was_chosen(model: str, room: Room, choice: Choice, needs: str) -> None:
    """Precision, offload and the limit: each changes what there must be, or where it may be."""
    reason = fitness(known()[model].model, room, choice)
    assert reason.startswith(f"it needs {needs} GiB") if needs else reason == ""


def test_what_is_quantised_in_its_file_is_not_made_smaller() -> None:
    """Nor larger, whatever precision is chosen; and on a CPU it stays in memory."""
    model = known()["flux2-klein:4b"].model
    for choice in (Choice(), Choice("float32"), Choice("nf4", "none"), Choice("auto", "group")):
        assert fitness(model, cpu(7), choice, filed=True).startswith("it needs 7.6 GiB")
        assert fitness(model, cpu(8), choice, filed=True) == ""


def test_a_model_of_unknown_size_is_given_a_try() -> None:
    """What nobody measured is not refused."""
    assert fitness(offer().model, Room(0, 0)) == ""
