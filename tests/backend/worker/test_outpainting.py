"""Going on beyond the edge: the canvas was enlarged, and what is transparent is selected."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from parities.tiny_flux1 import build_tiny_flux1
from PIL import Image
from underpaint_backend.engine.device import open_device
from underpaint_backend.worker.inbox import Job
from underpaint_backend.worker.interface import read_message
from underpaint_backend.worker.outbox import Outbox
from underpaint_backend.worker.worker import Worker
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Done, Request, Submit

from tests.backend.engine.tiny import build_tiny
from tests.backend.worker.driving import canvas_of, image_of, pictures_of, tiled

WIDTH, HEIGHT, EDGE = 96, 64, 61
"""The picture was `EDGE` px wide, which is no multiple of a latent's cell."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion inpainting and FLUX.1 Fill, both tiny."""
    folder = tmp_path_factory.mktemp("models")
    build_tiny(folder / "sd", 9)
    build_tiny_flux1(folder / "fill", "fill")
    return folder


@pytest.mark.parametrize("strength", [1.0, 0.8])
@pytest.mark.parametrize("model", ["sd", "tiny-flux1-fill"])
def test_the_transparent_border_is_painted_and_the_rest_stays(folder: Path, model: str, strength: float) -> None:
    """All of the border, by the seed, and none of what an eraser left under its transparency; the rest to the bit."""
    canvas, border = canvas_of(WIDTH, HEIGHT), np.zeros((HEIGHT, WIDTH), np.uint8)
    canvas[:, EDGE:] = 0
    border[:, EDGE:] = 255
    said = io.BytesIO()
    worker = Worker(open_device("cpu"), [folder], Outbox(said))
    request = Request(model, "inpaint", WIDTH, HEIGHT, prompt="sea", strength=strength, steps=3, seed=3)

    def painted(under: int, seed: int) -> NDArray[np.uint8]:
        """The canvas [H, W, 4] with the layer over it, if the border has this hidden colour."""
        canvas[:, EDGE:, :3] = under
        named = replace(request, image=image_of(canvas), mask=image_of(border), seed=seed)
        layer = run(worker, said, named, {**tiled(canvas)[1], **tiled(border)[1]})
        assert np.array_equal(layer[..., 3], border)
        return np.asarray(Image.alpha_composite(Image.fromarray(canvas), Image.fromarray(layer)))

    first, again, other = painted(0, 3), painted(255, 3), painted(0, 4)
    assert np.array_equal(first[:, :EDGE], canvas[:, :EDGE])
    assert (first[..., 3] == 255).all()
    assert np.array_equal(first, again)
    assert (first[:, EDGE:, :3] != other[:, EDGE:, :3]).any(axis=2).mean() > 0.9
    assert (first[:, EDGE:, :3].std(axis=(0, 1)) > 1).all()


def run(worker: Worker, said: io.BytesIO, request: Request, tiles: dict[bytes, bytes]) -> NDArray[np.uint8]:
    """The layer [H, W, 4] of one job."""
    said.seek(0)
    said.truncate()
    worker.run(Job(Submit("job", request), tiles))
    said.seek(0)
    messages: list[Record] = []
    while (message := read_message(said)) is not None:
        messages.append(message)
    assert isinstance(messages[-1], Done), messages[-1]
    [layer] = pictures_of(messages)
    return layer.astype(np.uint8)
