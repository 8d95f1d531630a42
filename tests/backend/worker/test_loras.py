"""From the names of LoRAs in a request to their files, without a worker."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from underpaint_backend.engine.exceptions import UnknownLora
from underpaint_backend.models.folder_list import add_folder
from underpaint_backend.worker.failures import Refused
from underpaint_backend.worker.loras import files_of
from underpaint_protocol.messages import Adapter

from tests.backend.models.weight_files import checkpoint_of, kohya_lora, write


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, and an added folder beside it."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    (tmp_path / "added").mkdir()
    add_folder(tmp_path / "added")
    return tmp_path


def test_loras_are_found_in_both_places(home: Path) -> None:
    """In an added folder, and in `loras` of the data folder, without and with the ending."""
    ink = write(home / "added" / "ink.safetensors", kohya_lora("sd1"))
    paper = write(home / "home" / "loras" / "paper.safetensors", kohya_lora("sd1"))
    assert files_of([Adapter("ink", 0.5), Adapter("paper.safetensors")]) == [(ink, 0.5), (paper, 1.0)]


@pytest.mark.parametrize(
    ("name", "tensors", "why"),
    [
        ("sd3", {"transformer.joint_blocks.0.attn.to_q.lora_A.weight": (4, 8)}, "it is a LoRA for Stable Diffusion 3"),
        ("odd", {"strange.layer.lora_A.weight": (4, 8)}, "it is a LoRA for "),
        ("hada", {"lora_unet_x.hada_w1_a": (4, 8)}, "it is a LoHa, which is not a LoRA"),
    ],
)
def test_a_lora_that_cannot_be_used_is_not_said_to_be_missing(
    home: Path, name: str, tensors: dict[str, tuple[int, ...]], why: str
) -> None:
    """It lies there, and the reason is told."""
    write(home / "added" / f"{name}.safetensors", tensors)
    with pytest.raises(Refused) as refusal:
        files_of([Adapter(name)])
    assert refusal.value.info.code == "broken_lora"
    assert refusal.value.info.message.startswith(f"The LoRA “{name}” cannot be used: {why}")


def test_a_pickle_and_a_model_are_no_loras(home: Path) -> None:
    """What lies there under that name is told."""
    (home / "added" / "old.pt").write_bytes(b"pickle")
    write(home / "added" / "dreamer.safetensors", checkpoint_of("sd1"))
    for name, why in (("old", "it is a pickle"), ("dreamer", "it is a model: choose it in the list of models")):
        with pytest.raises(Refused, match=f"The LoRA “{name}” cannot be used: {why}"):
            files_of([Adapter(name)])


def test_without_a_folder_for_loras_nothing_is_written_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has to have one."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(UnknownLora):
        files_of([Adapter("ink")])
    assert caplog.records == []
