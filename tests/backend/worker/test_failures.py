"""What an artist hears of exceptions."""

from __future__ import annotations

import logging

import pytest
import torch
from underpaint_backend.engine.device import is_out_of_memory, open_device
from underpaint_backend.engine.exceptions import NotFinite
from underpaint_backend.worker.failures import explain
from underpaint_protocol.exceptions import TileError

CPU = open_device("cpu")


def test_errors_with_a_sentence_keep_it() -> None:
    """Errors of the engine and of the protocol travel as they are."""
    assert explain(NotFinite("Tiny"), CPU) == NotFinite("Tiny").info
    assert explain(TileError("torn"), CPU).code == "bad_tile"


def test_too_little_memory_says_how_much_was_needed_and_free() -> None:
    """An allocation that no machine can satisfy becomes an error with both figures."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 52, dtype=torch.uint8)

    error = explain(caught.value, CPU)

    assert error.code == "out_of_memory"
    assert "4503599.6 GB more" in error.message
    assert "GB were free" in error.message


def test_a_devices_own_words_are_understood() -> None:
    """What CUDA says when its memory is full becomes the same error."""
    words = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8.00 GiB"

    error = explain(torch.OutOfMemoryError(words), CPU)

    assert error.code == "out_of_memory"
    assert "2.7 GB more" in error.message


def test_memory_errors_without_figures() -> None:
    """An error of Python itself does not say how much was needed, and none is made up."""
    assert is_out_of_memory(MemoryError())
    assert "needed more memory" in explain(MemoryError(), CPU).message


def test_what_nobody_expected_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """A fault of ours is an internal error: its place is in the log, its words do not travel."""
    with caplog.at_level(logging.ERROR):
        error = explain(ZeroDivisionError("secret words"), CPU)

    assert error.code == "internal"
    assert "secret" not in error.message
    assert "ZeroDivisionError" in caplog.text
