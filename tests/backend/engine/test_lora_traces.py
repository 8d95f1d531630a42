"""Nothing is left of a LoRA when it is gone, and what is kept of LoRAs is bounded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from underpaint_backend.engine.exceptions import ModelBroken
from underpaint_backend.engine.families import Family
from underpaint_backend.engine.lora import LoraRack
from underpaint_backend.engine.precision import Storage

from tests.backend.engine.lora_files import (
    BUILDERS,
    answer,
    lora_for,
    spoil,
    wearing,
)


@pytest.mark.parametrize("name", BUILDERS)
def test_nothing_is_left_of_a_lora(load: Callable[[str], Family], tmp_path: Path, name: str) -> None:
    """After the job, or with a weight of 0, the model is what it was, to the bit; so are its modules."""
    family = load(name)
    path = lora_for(name, family, tmp_path / "style.safetensors")
    rack = LoraRack()
    plain = answer(family)
    before = [(type(module), len(module._forward_hooks)) for network in family.networks for module in network.modules()]

    with wearing(rack, family, [(path, 0.9)]) as worn:
        changed = answer(family)
        assert worn.marks
        assert family.parts.marks == worn.marks
    assert torch.equal(answer(family), plain)
    with wearing(rack, family, [(path, 0.0)]):
        assert torch.equal(answer(family), plain)
        assert family.parts.marks == {}

    assert not torch.equal(changed, plain)
    assert family.parts.marks == {}
    after = [(type(module), len(module._forward_hooks)) for network in family.networks for module in network.modules()]
    assert after == before


def test_two_jobs_alternate(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Each gets its own each time, to the bit, and files are read once."""
    family = load("stable_diffusion")
    paths = [lora_for("stable_diffusion", family, tmp_path / f"{seed}.safetensors", seed) for seed in range(2)]
    rack = LoraRack()

    def job(index: int) -> Tensor:
        with wearing(rack, family, [(paths[index], 0.7)]):
            return answer(family)

    first = [job(0), job(1)]
    spoil(*paths)
    for index in (0, 1, 0, 1):
        assert torch.equal(job(index), first[index])
    assert not torch.equal(first[0], first[1])


def test_a_job_that_fails_leaves_nothing(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Not even a cancelled one, whose exception is none that libraries catch."""
    family = load("stable_diffusion")
    path = lora_for("stable_diffusion", family, tmp_path / "style.safetensors")
    plain = answer(family)

    with pytest.raises(KeyboardInterrupt), wearing(LoraRack(), family, [(path, 1.0)]):
        raise KeyboardInterrupt

    assert torch.equal(answer(family), plain)
    assert family.parts.marks == {}


def test_a_network_that_is_read_again_is_dressed_again(load: Callable[[str], Family], tmp_path: Path) -> None:
    """In the middle of a job it may have had to make room. To dress one twice is to dress it once."""
    family = load("stable_diffusion")
    path = lora_for("stable_diffusion", family, tmp_path / "style.safetensors")

    with wearing(LoraRack(), family, [(path, 1.0)]) as worn:
        expected = answer(family)
        family.parts.residency.clear()
        assert not torch.equal(answer(family), expected)
        for _ in range(2):
            for part in family.parts.names:
                worn.dress(part, family.parts[part])
        assert torch.equal(answer(family), expected)


@pytest.mark.parametrize("storage", [Storage.FP8, Storage.FETCHED])
def test_a_model_with_packed_weights_wears_loras(
    load: Callable[[str], Family], tmp_path: Path, storage: Storage
) -> None:
    """They are added to what its layers say, whatever these are kept in: as much as to weights in full, nearly."""
    family = load("stable_diffusion")
    path = lora_for("stable_diffusion", family, tmp_path / "style.safetensors")
    rack = LoraRack()
    with wearing(rack, family, [(path, 0.5)]):
        in_full = answer(family)

    family.parts.storage = storage
    plain = answer(family)
    with wearing(rack, family, [(path, 0.5)]):
        changed = answer(family)

    assert (changed - in_full).norm() <= 0.1 * in_full.norm()  # on a CPU, text encoders have 8 bits in both
    assert (changed - plain).norm() > 0.2 * plain.norm()
    assert torch.equal(answer(family), plain)


def test_the_lora_used_least_recently_makes_room(load: Callable[[str], Family], tmp_path: Path) -> None:
    """Beyond the number, or the bytes."""
    family = load("stable_diffusion")
    paths = {
        name: lora_for("stable_diffusion", family, tmp_path / f"{name}.safetensors", seed)
        for seed, name in enumerate("abc")
    }
    size = bytes_of(paths["a"])
    racks = (LoraRack(most=2), LoraRack(most_bytes=2 * size))
    for rack in racks:
        for name in "abac":
            wear(rack, family, paths[name])
        assert rack.bytes == 2 * size
    spoil(*paths.values())
    for rack in racks:
        wear(rack, family, paths["a"])
        wear(rack, family, paths["c"])
        with pytest.raises(ModelBroken):
            wear(rack, family, paths["b"])


def bytes_of(path: Path) -> int:
    """What the LoRA in a file takes."""
    return sum(value.nbytes for value in load_file(path).values())


def wear(rack: LoraRack, family: Family, path: Path) -> None:
    """A job with a LoRA, which makes nothing. Raises `ModelBroken` if its file has to be read and cannot be."""
    with wearing(rack, family, [(path, 1.0)]):
        pass


def test_those_of_a_job_stay_whatever_they_take(load: Callable[[str], Family], tmp_path: Path) -> None:
    """A job with more than are kept works; afterwards the next job's make room."""
    family = load("stable_diffusion")
    paths = [lora_for("stable_diffusion", family, tmp_path / f"{seed}.safetensors", seed) for seed in range(3)]
    rack = LoraRack(most=1)
    roomy = LoraRack()
    choices = [(path, 0.2) for path in paths]
    size = bytes_of(paths[0])

    with wearing(rack, family, choices):
        found = answer(family)
        assert rack.bytes == 3 * size
    with wearing(roomy, family, choices):
        assert torch.equal(answer(family), found)
    spoil(*paths)
    with wearing(rack, family, choices[:1]):
        assert rack.bytes == size
    wear(rack, family, paths[0])
    assert rack.let_go()
    assert rack.bytes == 0


def test_where_memory_is_short_those_that_are_idle_go(load: Callable[[str], Family], tmp_path: Path) -> None:
    """They make room with idle models, and those that the job wears stay; the answer is the same."""
    family = load("stable_diffusion")
    residency = family.parts.residency
    first, second = (lora_for("stable_diffusion", family, tmp_path / f"{seed}.safetensors", seed) for seed in range(2))
    rack = LoraRack()
    residency.let_go = rack.let_go
    wear(rack, family, first)

    with wearing(rack, family, [(second, 1.0)]):
        expected = answer(family)
        assert residency.evict(keep=family.parts.identities())
        assert rack.bytes == bytes_of(second)
        assert torch.equal(answer(family), expected)
        assert not residency.evict(keep=family.parts.identities())
    spoil(first, second)
    wear(rack, family, second)
    with pytest.raises(ModelBroken):
        wear(rack, family, first)


def test_a_file_that_was_changed_is_read_again(load: Callable[[str], Family], tmp_path: Path) -> None:
    """As when somebody trains on."""
    family = load("stable_diffusion")
    path = lora_for("stable_diffusion", family, tmp_path / "style.safetensors", 0)
    rack = LoraRack()
    with wearing(rack, family, [(path, 1.0)]):
        before = answer(family)
    shutil.copy(lora_for("stable_diffusion", family, tmp_path / "better.safetensors", 1), path)

    with wearing(rack, family, [(path, 1.0)]):
        assert not torch.equal(answer(family), before)
