"""A new family of models is one file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from underpaint_backend.engine import families
from underpaint_backend.engine.denoise import Step
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library
from underpaint_backend.engine.painting import Observer, Painting, Source, paint
from underpaint_backend.models.catalog import Entry
from underpaint_protocol.messages import Model

FILE = '''
"""Flow models in one colour: the velocity leads from noise to the colour that the prompt names."""

import torch
from torch.nn import functional

from underpaint_backend.engine.families import Family
from underpaint_backend.engine.schedulers import Schedule

COLOURS = {"red": (1.0, -1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}


class OneColour(Family):
    NETWORKS = {}

    def check(self):
        pass

    latent_channels, latent_scale, takes_mask = 3, 4, False

    def encode_prompt(self, text):
        return (torch.tensor(COLOURS[text]),)

    def encode(self, pictures):
        return functional.avg_pool2d(pictures, 4)

    def decode(self, latents):
        return functional.interpolate(latents, scale_factor=4)

    def schedule(self, name, steps, strength, size):
        return Schedule.of(name, {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, steps, strength)

    def predictor(self, conditions, batch):
        colour = conditions.prompt[0][None, :, None, None]
        return lambda latents, timestep: (latents - colour) / (timestep / 1000)


FAMILY = OneColour
'''


@pytest.fixture
def one_colour(tmp_path: Path) -> Iterator[Entry]:
    """A model of a family that was just added."""
    (tmp_path / "one_colour.py").write_text(FILE)
    families.__path__.append(str(tmp_path))
    yield Entry(
        Model(
            id="one-colour",
            name="One colour",
            family="one_colour",
            tasks=("inpaint", "text_to_image"),
            schedulers=("euler",),
            native_area=32 * 32,
            size_multiple=8,
            default_steps=4,
            default_guidance=1.0,
            default_scheduler="euler",
        ),
        tmp_path,
    )
    families.__path__.remove(str(tmp_path))
    sys.modules.pop(f"{families.__name__}.one_colour", None)


def test_a_file_is_all_that_a_family_needs(one_colour: Entry) -> None:
    """A flow model, which nothing else knows of, paints, inpaints, and shows right previews from its first step on."""
    assert "one_colour" in families.names()
    model = Library(open_device("cpu")).load(one_colour, lambda done: None, Event())
    steps: list[Step] = []
    observer = Observer(lambda phase: None, steps.append)
    painting = Painting((32, 32), "red", "", 1.0, "euler", 4, 1.0, (1, 2))

    pictures = paint(model, painting, observer, Event())

    assert (np.abs(pictures.astype(int) - (255, 0, 0)) <= 1).all()
    assert model.projection.fit > 0.999
    assert (np.abs(model.projection(steps[0].x0).numpy().astype(int) - (255, 0, 0)) <= 2).all()

    source = Source(np.full((32, 32, 3), 200, np.uint8), np.zeros((32, 32), np.float32))
    source.coverage[8:24, 8:24] = 1
    inpainted = paint(model, replace(painting, prompt="blue", strength=0.75, source=source), observer, Event())[0]

    assert (np.abs(inpainted[8:24, 8:24].astype(int) - (0, 0, 255)) <= 1).all()
    assert (inpainted[:8] == 200).all()
