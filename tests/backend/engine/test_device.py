"""Devices by name."""

from __future__ import annotations

import pytest
import torch
from underpaint_backend.engine.device import open_device


def test_there_is_always_a_device() -> None:
    """Whatever torch finds, the best device is opened, and it has memory."""
    device = open_device("auto")
    free, total = device.memory()

    assert 0 < free <= total
    assert device.name.startswith(str(device.torch_device))


def test_the_cpu_calculates_in_single_precision() -> None:
    """Half precision is slower than single on a CPU."""
    assert open_device("cpu").dtype is torch.float32


@pytest.mark.parametrize("name", ["cuda:99", "toaster", "meta:x", ""])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    """A device that cannot hold a tensor is none, and those that there are are named."""
    with pytest.raises(ValueError, match=f"there is no device “{name}” here.*[.] There is: cpu") as refusal:
        open_device(name)
    assert len(str(refusal.value)) < 200
