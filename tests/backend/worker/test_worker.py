"""A real worker process over real pipes."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from safetensors.torch import load_file, save_file
from underpaint_backend.engine.schedulers import NAMES
from underpaint_backend.models.catalog import DESCRIPTION
from underpaint_backend.worker.interface import HEADER, MAX_FRAME, Memory, MemoryQuery, Ready
from underpaint_protocol import images
from underpaint_protocol.fields import Record
from underpaint_protocol.geometry import working_size
from underpaint_protocol.messages import (
    PHASES,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Preview,
    Progress,
    Request,
    Result,
    Submit,
    Tile,
)

from tests.backend.worker.driving import (
    WorkerProcess,
    canvas_of,
    image_of,
    pictures_of,
    soft_mask_of,
)

CANVAS, MASK = canvas_of(90, 60), soft_mask_of(90, 60)
PIXELS = (CANVAS, MASK)
INPAINT = Request(
    model="fills",
    task="inpaint",
    width=90,
    height=60,
    prompt="a red circle",
    seed=7,
    image=image_of(CANVAS),
    mask=image_of(MASK),
)
LONG = replace(INPAINT, steps=1000)


def failure_of(messages: list[Record]) -> Failed:
    """The failure that a job ended in."""
    assert isinstance(messages[-1], Failed), messages[-1]
    return messages[-1]


@pytest.mark.parametrize("model", ["fills", "plain"])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_inpainting_returns_the_selection_alone(shared_worker: WorkerProcess, model: str, strength: float) -> None:
    """The result has the request's size, the mask as alpha, and the canvas' colours where nothing is selected."""
    messages = shared_worker.run(replace(INPAINT, model=model, strength=strength), *PIXELS)

    assert isinstance(messages[-1], Done)
    [picture] = pictures_of(messages)
    np.testing.assert_array_equal(picture[..., 3], MASK)
    np.testing.assert_array_equal(picture[MASK == 0, :3], CANVAS[MASK == 0, :3])
    assert (picture[MASK > 0, :3] != CANVAS[MASK > 0, :3]).any()


@pytest.mark.parametrize("model", ["fills", "plain"])
def test_text_to_image_returns_an_opaque_picture(shared_worker: WorkerProcess, model: str) -> None:
    """Without a canvas, the picture has the wanted size and no transparency."""
    messages = shared_worker.run(Request(model, "text_to_image", 50, 70, prompt="blue"))

    [picture] = pictures_of(messages)
    assert picture.shape == (70, 50, 4)
    assert (picture[..., 3] == 255).all()


@pytest.mark.parametrize("scheduler", NAMES)
def test_every_scheduler_paints(shared_worker: WorkerProcess, scheduler: str) -> None:
    """Each scheduler of the catalog leads to a picture."""
    messages = shared_worker.run(replace(INPAINT, scheduler=scheduler), *PIXELS)

    assert isinstance(messages[-1], Done)


def test_progress_goes_through_all_phases_and_never_falls(shared_worker: WorkerProcess) -> None:
    """The fraction rises from 0 to 1 over all phases, and steps count evaluations of the model."""
    messages = shared_worker.run(replace(INPAINT, scheduler="pndm", steps=6), *PIXELS)

    progress = [message for message in messages if isinstance(message, Progress)]
    fractions = [message.fraction for message in progress]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert list(dict.fromkeys(message.phase for message in progress)) == list(PHASES)
    assert [(m.step, m.steps) for m in progress if m.step] == [(step, 7) for step in range(1, 8)]


def test_previews_are_small_pictures_of_the_whole_area(shared_worker: WorkerProcess) -> None:
    """Previews are JPEGs at latent size, in order, and newer than the job."""
    began = time.time()
    messages = shared_worker.run(replace(INPAINT, batch=2, steps=40), *PIXELS)

    previews = [message for message in messages if isinstance(message, Preview)]
    width, height = working_size(90, 60, 64 * 64, 8)
    assert {message.index for message in previews} == {0, 1}
    assert [message.step for message in previews] == sorted(message.step for message in previews)
    for message in previews:
        assert PillowImage.open(io.BytesIO(message.data)).size == (message.width, message.height)
        assert (message.width, message.height) == (width // 4, height // 4)
        assert began <= message.predicted_at <= time.time()


def test_no_previews_unless_wanted(shared_worker: WorkerProcess) -> None:
    """A job that wants no previews gets none."""
    messages = shared_worker.run(INPAINT, *PIXELS, previews=False)

    assert not any(isinstance(message, Preview) for message in messages)


def test_a_batch_has_a_picture_for_each_seed(shared_worker: WorkerProcess) -> None:
    """The pictures of a batch have the seeds that follow the request's, and each can be had alone by its seed."""
    together = shared_worker.run(replace(INPAINT, batch=3), *PIXELS)
    alone = shared_worker.run(replace(INPAINT, seed=9), *PIXELS)

    results = [message for message in together if isinstance(message, Result)]
    assert [(message.index, message.seed) for message in results] == [(0, 7), (1, 8), (2, 9)]
    difference = pictures_of(together)[2].astype(int) - pictures_of(alone)[0].astype(int)
    assert abs(difference).max() <= 1


def test_equal_requests_give_equal_pictures(shared_worker: WorkerProcess) -> None:
    """The same request twice gives the same pixels."""
    first, second = (pictures_of(shared_worker.run(INPAINT, *PIXELS))[0] for _ in range(2))

    np.testing.assert_array_equal(first, second)


def test_canvases_without_alpha_are_taken(shared_worker: WorkerProcess) -> None:
    """A canvas may have three channels."""
    canvas = canvas_of(40, 40, 3)
    mask = soft_mask_of(40, 40)
    request = replace(INPAINT, width=40, height=40, image=image_of(canvas), mask=image_of(mask))

    [picture] = pictures_of(shared_worker.run(request, canvas, mask))

    np.testing.assert_array_equal(picture[mask == 0, :3], canvas[mask == 0])


def test_cancel_in_the_middle_of_denoising(shared_worker: WorkerProcess) -> None:
    """A running job stops soon after it is cancelled, and the next one gives what it always gives."""
    expected = pictures_of(shared_worker.run(INPAINT, *PIXELS))[0]
    shared_worker.submit(LONG, *PIXELS, job="long")
    shared_worker.until(lambda message: isinstance(message, Progress) and message.step > 3)
    began = time.monotonic()
    shared_worker.send(Cancel("long"))

    rest = list(shared_worker.until_end())

    assert rest[-1] == Cancelled("long")
    assert time.monotonic() - began < 2
    np.testing.assert_array_equal(pictures_of(shared_worker.run(INPAINT, *PIXELS))[0], expected)


def test_cancel_of_a_job_that_waits(shared_worker: WorkerProcess) -> None:
    """A job that was cancelled before its turn never starts."""
    shared_worker.submit(LONG, *PIXELS, job="first")
    shared_worker.submit(LONG, *PIXELS, job="second")
    shared_worker.send(Cancel("second"), Cancel("first"))

    assert list(shared_worker.until_end())[-1] == Cancelled("first")
    assert list(shared_worker.until_end()) == [Cancelled("second")]


def test_cancel_of_an_unknown_job_does_nothing(shared_worker: WorkerProcess) -> None:
    """A cancel that comes too late, or for nobody, changes nothing."""
    shared_worker.send(Cancel("nobody"))

    assert isinstance(shared_worker.run(INPAINT, *PIXELS)[-1], Done)


def test_memory_is_told_while_a_job_runs(shared_worker: WorkerProcess) -> None:
    """A question for the free memory is answered in the middle of a job."""
    shared_worker.submit(LONG, *PIXELS, job="long")
    shared_worker.until(lambda message: isinstance(message, Progress) and message.step > 0)
    shared_worker.send(MemoryQuery())
    memory = shared_worker.until(lambda message: isinstance(message, Memory))
    shared_worker.send(Cancel("long"))

    assert list(shared_worker.until_end())[-1] == Cancelled("long")
    assert isinstance(memory, Memory)
    assert 0 < memory.free <= memory.total


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (replace(INPAINT, model="nothing"), "unknown_model"),
        (replace(INPAINT, model="broken"), "model_broken"),
        (replace(INPAINT, scheduler="guesswork"), "unknown_scheduler"),
        (replace(INPAINT, mask=None), "invalid_field"),
        (replace(INPAINT, width=91), "invalid_field"),
        (replace(INPAINT, mask=image_of(soft_mask_of(60, 90))), "wrong_mask_size"),
        (replace(INPAINT, mask=image_of(soft_mask_of(90, 60) // 2)), "missing_pixels"),
    ],
)
def test_what_cannot_be_done_has_a_reason(shared_worker: WorkerProcess, request_: Request, code: str) -> None:
    """A job that cannot be done fails with the right code, and the worker lives on."""
    failed = failure_of(shared_worker.run(request_, *PIXELS))

    assert failed.error.code == code
    assert isinstance(shared_worker.run(INPAINT, *PIXELS)[-1], Done)


def test_an_empty_mask_is_an_empty_selection(shared_worker: WorkerProcess) -> None:
    """A mask that selects nothing is refused."""
    mask = np.zeros_like(MASK)

    failed = failure_of(shared_worker.run(replace(INPAINT, mask=image_of(mask)), CANVAS, mask))

    assert failed.error.code == "empty_selection"


def test_a_tile_of_another_size_is_missing_pixels(shared_worker: WorkerProcess) -> None:
    """A tile that does not fill its place counts as never arrived."""
    assert INPAINT.image is not None
    shared_worker.send(Tile(INPAINT.image.tiles[0], 3, b"bad"))

    assert failure_of(shared_worker.run(INPAINT, MASK)).error.code == "missing_pixels"


def test_sixteen_bits_stay_sixteen_bits(shared_worker: WorkerProcess) -> None:
    """A canvas of 16 bits keeps every bit where nothing is selected, and the mask keeps its own."""
    canvas = np.random.default_rng(3).integers(0, 65536, (60, 90, 4), np.uint16)
    canvas[..., 3] = 65535
    mask = MASK.astype(np.uint16) * 257
    request = replace(INPAINT, image=image_of(canvas), mask=image_of(mask))

    [picture] = pictures_of(shared_worker.run(request, canvas, mask))

    assert picture.dtype == np.uint16
    np.testing.assert_array_equal(picture[..., 3], mask)
    np.testing.assert_array_equal(picture[mask == 0, :3], canvas[mask == 0, :3])
    assert (picture[mask > 0, :3] != canvas[mask > 0, :3]).any()


def test_a_result_lies_where_its_request_lay(shared_worker: WorkerProcess) -> None:
    """The tiles of a result lie on the grid of the canvas, as those of the request did."""
    moved, tiles = images.image_of(90, 60, 4, CANVAS.tobytes(), x=230, y=500)
    shared_worker.send(*(Tile(name, len(data), data) for name, data in tiles.items()))
    messages = shared_worker.run(replace(INPAINT, image=moved), MASK)

    [result] = [message for message in messages if isinstance(message, Result)]
    assert (result.image.x, result.image.y, len(result.image.tiles)) == (230, 500, 4)


def test_messages_that_are_none_are_passed_over(shared_worker: WorkerProcess) -> None:
    """Bytes that are no message do not harm the next one."""
    shared_worker.write(HEADER.pack(4) + b"junk")

    assert isinstance(shared_worker.run(INPAINT, *PIXELS)[-1], Done)


def test_a_job_with_a_bad_value_fails_by_its_name(shared_worker: WorkerProcess) -> None:
    """A request that breaks a rule of the language is answered under its own name."""
    wire = Submit("bad", INPAINT).to_wire()
    wire["request"]["steps"] = -1
    data = msgpack.packb({"type": "submit", **wire})
    shared_worker.write(HEADER.pack(len(data)) + data)

    failed = shared_worker.next()

    assert isinstance(failed, Failed)
    assert (failed.job, failed.error.code) == ("bad", "invalid_field")


def test_the_log_says_what_happened_and_no_prompt(models_folder: Path, tmp_path: Path) -> None:
    """Every job leaves a line in the log, and no prompt does, whether the job succeeds or fails."""
    secret = replace(INPAINT, prompt="xyzzy", negative_prompt="plugh")
    with (tmp_path / "log").open("wb") as log:
        worker = WorkerProcess([models_folder], log=log)
        worker.wait_ready()
        worker.run(secret, *PIXELS, job="good")
        worker.run(replace(secret, model="broken"), *PIXELS, job="bad")
        worker.close()

    text = (tmp_path / "log").read_text()
    assert "job good: done" in text
    assert "job bad: failed" in text
    assert "xyzzy" not in text
    assert "plugh" not in text


def test_what_weights_are_kept_in_is_said(models_folder: Path) -> None:
    """Before the first job what was chosen, and anew when a model is kept otherwise."""
    chosen = WorkerProcess([models_folder], "--precision", "fp8")
    said = chosen.wait_ready()
    assert said.device.startswith("cpu")
    assert said.device.endswith(", float32, weights in fp8")
    messages = chosen.run(INPAINT, *PIXELS)
    assert not [message for message in messages if isinstance(message, Ready)]
    chosen.close()

    little = WorkerProcess([models_folder], "--memory-gib", "0.002")
    assert little.wait_ready().device.endswith(", float32")
    messages = little.run(INPAINT, *PIXELS)
    [again] = [message for message in messages if isinstance(message, Ready)]
    assert again.device.endswith(", float32, weights in fp8")
    assert isinstance(messages[-1], Done)
    little.close()


def test_the_worker_ends_with_its_input(models_folder: Path) -> None:
    """A worker whose input closes ends at once, in the middle of a job."""
    worker = WorkerProcess([models_folder])
    worker.wait_ready()
    worker.submit(LONG, *PIXELS)
    worker.until(lambda message: isinstance(message, Progress) and message.step > 0)
    began = time.monotonic()

    assert worker.close() == 0
    assert time.monotonic() - began < 2


def test_the_worker_ends_while_it_starts(models_folder: Path) -> None:
    """A worker whose input closes before it is ready ends as well."""
    assert WorkerProcess([models_folder]).close() == 0


def test_the_worker_ends_at_a_broken_frame(models_folder: Path) -> None:
    """A frame that is announced larger than any can be ends the worker: nothing after it can be understood."""
    worker = WorkerProcess([models_folder])
    worker.wait_ready()
    worker.write(HEADER.pack(MAX_FRAME + 1))

    assert worker.process.wait(10) == 0
    worker.close()


def test_an_unknown_device_ends_the_worker(models_folder: Path) -> None:
    """A device that is not there is a reason not to start."""
    worker = WorkerProcess([models_folder], "--device", "cuda:77")

    assert worker.process.wait(60) == 1
    worker.close()


def test_a_worker_keeps_to_the_memory_that_it_is_given(models_folder: Path) -> None:
    """Too little for any model is an error with numbers, and a little more is enough."""
    for limit, expected in (("0.00001", Failed), ("1", Done)):
        worker = WorkerProcess([models_folder], "--memory-gib", limit, "--offload", "none", "--precision", "float32")
        worker.wait_ready()
        end = worker.run(INPAINT, *PIXELS)[-1]
        assert isinstance(end, expected), end
        if isinstance(end, Failed):
            assert end.error.code == "out_of_memory"
            assert re.search(r"\d+ [MG]B", end.error.message)
        worker.close()


@pytest.mark.parametrize(
    ("part", "code"), [("vae", "model_broken"), ("unet", "not_finite"), ("text_encoder", "not_finite")]
)
def test_weights_that_are_no_numbers_are_said_and_the_next_job_works(
    models_folder: Path, tmp_path: Path, part: str, code: str
) -> None:
    """Wherever they are."""
    shutil.copytree(models_folder / "fills", tmp_path / "poisoned")
    [file] = (tmp_path / "poisoned" / part).glob("*.safetensors")
    poison = {name: torch.full_like(weight, float("nan")) for name, weight in load_file(file).items()}
    save_file(poison, file, metadata={"format": "pt"})
    description = tmp_path / "poisoned" / DESCRIPTION
    description.write_text(json.dumps({**json.loads(description.read_text()), "id": "poisoned"}))
    worker = WorkerProcess([models_folder, tmp_path])
    worker.wait_ready()
    assert failure_of(worker.run(replace(INPAINT, model="poisoned"), *PIXELS)).error.code == code
    assert isinstance(worker.run(INPAINT, *PIXELS)[-1], Done)
    worker.close()
