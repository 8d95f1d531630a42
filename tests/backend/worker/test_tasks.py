"""What a worker makes of each task, and of what goes with a request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parities.tiny_flux1 import build_tiny_flux1
from parities.tiny_flux2 import build_tiny_flux2
from safetensors.torch import save_file
from underpaint_backend.models.catalog import DESCRIPTION
from underpaint_protocol.messages import Adapter, Done, Failed, Preview, Request

from tests.backend.engine.tiny import build_tiny
from tests.backend.worker.driving import WorkerProcess, canvas_of, image_of, pictures_of, soft_mask_of

CANVAS, MASK = canvas_of(90, 60), soft_mask_of(90, 60)
PLAIN = Request("plain", "text_to_image", 48, 64, prompt="blue", seed=3)
REFINE = Request("plain", "image_to_image", 90, 60, prompt="blue", strength=0.5, seed=3, image=image_of(CANVAS))


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker with one model that does every task; it edits as if it understood instructions."""
    folder = tmp_path_factory.mktemp("models")
    build_tiny(folder / "plain", 4)
    description = folder / "plain" / DESCRIPTION
    tasks = ["inpaint", "text_to_image", "image_to_image"]
    description.write_text(json.dumps({**json.loads(description.read_text()), "tasks": tasks}))
    variants = (("schnell", build_tiny_flux1), ("kontext", build_tiny_flux1), ("klein", build_tiny_flux2))
    for name, build in variants:
        build(folder / name, name)
        description = folder / name / DESCRIPTION
        can = {"tasks": [*tasks, "edit"]} if name != "schnell" else {}
        description.write_text(json.dumps({**json.loads(description.read_text()), "id": name, **can}))
    home = tmp_path_factory.mktemp("home")
    (home / "loras").mkdir()
    write_lora(home / "loras" / "ink.safetensors", width=32)
    write_lora(home / "loras" / "large.safetensors", width=2048)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERPAINT_HOME", str(home))
        worker = WorkerProcess([folder])
        worker.wait_ready()
        yield worker
        assert worker.close() == 0


def write_lora(path: Path, width: int) -> None:
    """A LoRA as diffusers writes them, for a UNet whose text has `width` numbers for each token."""
    draw = torch.Generator().manual_seed(width)
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    down, up = (torch.randn(shape, generator=draw) for shape in ((2, width), (32, 2)))
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, path)


def test_a_picture_is_painted_anew_as_far_as_the_strength_says(worker: WorkerProcess) -> None:
    """The whole of it, opaque and at its size; a low strength stays nearer than a high one."""
    far = {}
    for strength in (0.1, 0.9):
        [picture] = pictures_of(worker.run(replace(REFINE, strength=strength), CANVAS))
        assert picture.shape == (60, 90, 4)
        assert (picture[..., 3] == 255).all()
        far[strength] = np.abs(picture[..., :3].astype(float) - CANVAS[..., :3]).mean()
    assert far[0.1] < far[0.9]


def test_a_picture_keeps_its_16_bits(worker: WorkerProcess) -> None:
    """What was sent with 16 bits a channel comes back so."""
    deep = CANVAS.astype(np.uint16) * np.uint16(257)
    [picture] = pictures_of(worker.run(replace(REFINE, image=image_of(deep)), deep))
    assert picture.dtype == np.uint16
    assert (picture[..., 3] == 65535).all()


def test_a_prompt_that_is_cut_says_where(worker: WorkerProcess) -> None:
    """Ten thousand words are taken, and the artist hears which of them no longer counted."""
    words = " ".join(f"word{number}" for number in range(10_000))
    messages = worker.run(replace(PLAIN, prompt=words))
    assert isinstance(messages[-1], Done)
    [notice] = messages[-1].notices
    assert "cut before “" in notice
    assert "word6 word7" in notice
    both = worker.run(replace(PLAIN, prompt=words, negative_prompt=words, guidance=3.0))[-1]
    assert isinstance(both, Done)
    assert [notice.split(" is too")[0] for notice in both.notices] == ["The prompt", "The negative prompt"]
    assert worker.run(PLAIN)[-1].notices == ()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (replace(PLAIN, references=(image_of(CANVAS),)), "too_many_references"),
        (replace(PLAIN, width=7, height=7), "wrong_size"),
        (replace(PLAIN, width=10_000, height=10_000), "wrong_size"),
        (replace(PLAIN, model="klein", references=(image_of(CANVAS),) * 9), "too_many_references"),
        (replace(REFINE, task="edit"), "unsupported_task"),
        (replace(PLAIN, loras=(Adapter("../ink"),)), "unknown_lora"),
        (replace(PLAIN, loras=(Adapter("large"),)), "wrong_lora"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_next_job_works(
    worker: WorkerProcess, request_: Request, code: str
) -> None:
    """The worker lives."""
    end = worker.run(request_, CANVAS)[-1]
    assert isinstance(end, Failed)
    assert end.error.code == code
    assert end.error.hint
    assert isinstance(worker.run(PLAIN)[-1], Done)


def test_what_is_refused_says_what_would_do(worker: WorkerProcess) -> None:
    """Both families of a LoRA that does not fit, how many references there may be, and which size."""
    said = {}
    for name, request in {
        "lora": replace(PLAIN, loras=(Adapter("large"),)),
        "references": replace(PLAIN, model="klein", references=(image_of(CANVAS),) * 9),
        "small": replace(PLAIN, width=7, height=7),
        "large": replace(PLAIN, width=10_000, height=10_000),
    }.items():
        end = worker.run(request, CANVAS)[-1]
        assert isinstance(end, Failed)
        said[name] = end.error.message
    assert "“large” was made for SDXL, not for Tiny with 4 channels (Stable Diffusion 1.5)." in said["lora"]
    assert "at most 4 reference pictures, and 9 were given" in said["references"]
    assert "7 × 7 px, and each side needs at least 16 px" in said["small"]
    assert "10000 × 10000 px, and at most 67 megapixels" in said["large"]


@pytest.mark.parametrize("model", ["schnell", "klein"])
def test_a_prompt_that_a_flow_model_cuts_says_where(worker: WorkerProcess, model: str) -> None:
    """Their tokenizers take more, and are counted in another way."""
    words = " ".join(f"word{number}" for number in range(10_000))
    end = worker.run(replace(PLAIN, model=model, prompt=words, steps=1))[-1]
    assert isinstance(end, Done)
    [notice] = end.notices
    assert re.search(r"cut before “\S* ?word\d+ word\d+", notice)
    end = worker.run(replace(PLAIN, model=model, steps=1))[-1]
    assert isinstance(end, Done)
    assert end.notices == ()


def test_the_full_size_is_painted_and_not_scaled_up(worker: WorkerProcess) -> None:
    """Beyond the model's own area there is more detail than in a picture that was scaled up."""
    large = replace(PLAIN, width=160, height=160, steps=2)
    [scaled], [full] = (pictures_of(worker.run(replace(large, full_size=full))) for full in (False, True))
    assert scaled.shape == full.shape == (160, 160, 4)

    def detail(picture: np.ndarray) -> float:
        return float(np.abs(np.diff(picture[..., :3].astype(float), axis=0)).mean())

    assert detail(full) > detail(scaled)


def previewed(worker: WorkerProcess, request: Request) -> tuple[int, int]:
    """How large the previews of a job are: a pixel for each cell that is painted."""
    messages = worker.run(request, CANVAS, MASK)
    assert isinstance(messages[-1], Done), messages[-1]
    return next((message.width, message.height) for message in messages if isinstance(message, Preview))


@pytest.mark.parametrize(
    ("model", "task", "grows"),
    [
        ("schnell", "inpaint", True),
        ("klein", "inpaint", True),
        ("klein", "edit", True),
        ("kontext", "inpaint", False),
        ("kontext", "edit", False),
        ("kontext", "text_to_image", True),
    ],
)
def test_the_full_size_is_for_models_that_can(worker: WorkerProcess, model: str, task: str, grows: bool) -> None:
    """In windows, or as they were trained for it. Kontext with a canvas before its eyes can do neither."""
    seen = {"image": image_of(CANVAS)} if task != "text_to_image" else {}
    if task == "inpaint":
        seen["mask"] = image_of(MASK)
    request = Request(model, task, 90, 60, prompt="blue", seed=3, steps=1, **seen)  # type: ignore[arg-type]
    small, large = (previewed(worker, replace(request, full_size=full)) for full in (False, True))

    assert (large[0] * large[1] > small[0] * small[1]) == grows


def test_a_lora_changes_one_job_and_no_other(worker: WorkerProcess) -> None:
    """As far as its weight says; afterwards the model is what it was."""

    def painted(*loras: Adapter) -> np.ndarray:
        [picture] = pictures_of(worker.run(replace(PLAIN, loras=loras)))
        return picture.astype(float)

    plain = painted()
    full, half = painted(Adapter("ink")), painted(Adapter("ink.safetensors", 0.5))
    assert np.abs(full - plain).mean() > np.abs(half - plain).mean() > 0
    np.testing.assert_array_equal(painted(Adapter("ink", 0.0)), plain)
    np.testing.assert_array_equal(painted(), plain)
