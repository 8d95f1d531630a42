"""FLUX.1 [Kontext] in a single file, whose header is that of [dev]: its name or its entry tells."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parities.tiny_flux1 import build_tiny_flux1
from safetensors.torch import load_file, save_file
from underpaint_backend.engine.device import open_device
from underpaint_backend.models.adding import add
from underpaint_backend.models.catalog import DESCRIPTION, find_models
from underpaint_backend.models.folders import file_table
from underpaint_backend.worker.inbox import Job
from underpaint_backend.worker.interface import read_message
from underpaint_backend.worker.outbox import Outbox
from underpaint_backend.worker.worker import Worker
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Done, Request, Submit

from tests.backend.worker.driving import Pixels, canvas_of, image_of, pictures_of, soft_mask_of, tiled

SIDE = 64


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Kontext as a folder and as a file, and [dev], which lends the file what it lacks."""
    root = tmp_path_factory.mktemp("kontext")
    entry = build_tiny_flux1(root / "models" / "kontext", "kontext")
    model = replace(entry.model, tasks=("edit", "text_to_image", "inpaint"), max_references=1)
    (entry.folder / DESCRIPTION).write_text(json.dumps(model.to_wire()))
    dev = shutil.copytree(entry.folder, root / "models" / "dev")
    (dev / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    lender = replace(model, id="tiny-flux1-dev", tasks=("text_to_image", "inpaint"), max_references=0)
    (dev / DESCRIPTION).write_text(json.dumps(lender.to_wire()))
    (weights,) = (entry.folder / "transformer").glob("*.safetensors")
    save_file(load_file(weights), root / "mine.safetensors")
    for name, folder in (("kontext-pack", entry.folder), ("dev-pack", dev)):
        pack = shutil.copytree(folder, root / name, ignore=shutil.ignore_patterns("*.safetensors"))
        wire = json.loads((folder / DESCRIPTION).read_text())
        (pack / "defaults.json").write_text(json.dumps({key: wire[key] for key in DEFAULTS if key in wire}))
    return root


DEFAULTS = (
    *("family", "tasks", "native_area", "size_multiple", "default_steps", "default_guidance", "default_scheduler"),
    "max_references",
)


@pytest.fixture
def worker(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, io.BytesIO]:
    """A worker that offers all of them, and what it says."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path))
    add(file_table("mine", models / "mine.safetensors", str(models / "kontext-pack")))
    add(file_table("taken-for-dev", models / "mine.safetensors", str(models / "dev-pack")))
    said = io.BytesIO()
    return Worker(open_device("cpu"), [models / "models"], Outbox(said)), said


def painted(worker: tuple[Worker, io.BytesIO], request: Request, *pixels: Pixels) -> Pixels:
    """The picture of one job."""
    runner, said = worker
    said.seek(0)
    said.truncate()
    tiles = {name: data for array in pixels for name, data in tiled(array)[1].items()}
    runner.run(Job(Submit("job", request, previews=False), tiles))
    said.seek(0)
    messages: list[Record] = []
    while (message := read_message(said)) is not None:
        messages.append(message)
    assert isinstance(messages[-1], Done), messages[-1]
    (picture,) = pictures_of(messages)
    return picture


def test_a_file_edits_and_inpaints_as_the_folder_does(worker: tuple[Worker, io.BytesIO]) -> None:
    """It looks at the canvas in both; taken for [dev] it would not."""
    canvas, mask = canvas_of(SIDE, SIDE), soft_mask_of(SIDE, SIDE)
    asked = Request("mine", "edit", SIDE, SIDE, prompt="make it night", steps=2, seed=3, image=image_of(canvas))
    inpaint = replace(asked, task="inpaint", mask=image_of(mask))
    for request, pixels in ((asked, [canvas]), (inpaint, [canvas, mask])):
        expected = painted(worker, replace(request, model="tiny-flux1-kontext"), *pixels)
        assert np.array_equal(painted(worker, request, *pixels), expected)
    as_dev = painted(worker, replace(inpaint, model="taken-for-dev"), canvas, mask)
    assert not np.array_equal(as_dev, expected)


def test_without_a_lender_the_entry_says_what_is_missing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has the transformer alone; and one that is gone, or is something else, is said to be."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path))
    file = Path(shutil.copy(models / "mine.safetensors", tmp_path / "lonely.safetensors"))
    add(file_table("lonely", file, str(models / "kontext-pack")))
    assert find_models([])["lonely"].model.state == "unfit"
    assert "its file has no text_encoder, text_encoder_2, vae" in find_models([])["lonely"].model.detail
    assert find_models([models / "models"])["lonely"].model.state == "ready"
    save_file({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(2, 3072)}, file)
    assert find_models([models / "models"])["lonely"].model.state == "unfit"
    save_file({"joint_blocks.0.context_block.attn.qkv.weight": torch.zeros(2, 2)}, file)
    assert "Stable Diffusion 3" in find_models([])["lonely"].model.detail
    file.unlink()
    assert find_models([])["lonely"].model.state == "absent"
