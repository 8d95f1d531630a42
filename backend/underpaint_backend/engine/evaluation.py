"""One evaluation of a model: as a whole, or in as many passes as memory and the model's training ask for."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, cat

from .denoise import Predict
from .families import Conditions, Region
from .ladder import Effort
from .library import LoadedModel
from .windows import Window, blended, side_for, windows

if TYPE_CHECKING:
    from .painting import Painting

TOO_LARGE = 1.5
"""Times the area that a model was trained at, above which it sees a picture in windows."""


class Evaluation:
    """Predicts for all images of a painting, as `denoise` wants it.

    Above the area that the model was trained at, in windows; where memory is short, fewer images in one pass, and what
    the prompt says apart from what the negative prompt says. What comes out is the same, but for windows.

    `conditions` are those of the whole picture. `seen_size` is width and height, in px, of what the model sees at once.
    """

    conditions: Conditions

    def __init__(self, model: LoadedModel, painting: Painting) -> None:
        self._model = model
        self._scale = model.latent_scale
        self._cells = (painting.size[1] // self._scale, painting.size[0] // self._scale)
        self._windows = self._divided(bool(painting.references))
        self._predictors: dict[Hashable, Predict] = {}

    @property
    def seen_size(self) -> tuple[int, int]:
        window = self._windows[0]
        return window.width * self._scale, window.height * self._scale

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The model's output [B, C, h, w] for all images."""

        def predict(window: Window) -> Tensor:
            return self._for_window(window, window.of(latents), timestep)

        return blended(self._windows, self._cells, predict)

    def _divided(self, has_references: bool) -> list[Window]:
        family, description = self._model.family, self._model.description
        height, width = self._cells
        whole = family.was_trained_large or (has_references and family.ties_references)
        if whole or height * width * self._scale**2 <= TOO_LARGE * description.native_area:
            return windows(self._cells, self._cells)
        multiple = max(1, description.size_multiple // self._scale)
        side = side_for(self._cells, description.native_area // self._scale**2, multiple)
        return windows(self._cells, side, multiple)

    def _for_window(self, window: Window, latents: Tensor, timestep: Tensor) -> Tensor:
        ladder, images = self._model.ladder, len(latents)
        guided = self.conditions.negative_prompt is not None and not self._model.family.guides_in_two_passes
        done: list[Tensor] = []
        while sum(map(len, done)) < images:
            begin = sum(map(len, done))
            effort = Effort("denoising", images - begin, guided)

            def predict(begin: int = begin) -> Tensor:
                part = latents[begin : begin + (ladder.at_once or images)]
                return self._guided(window, part, timestep)

            done.append(ladder.attempt(effort, predict))
        return done[0] if len(done) == 1 else cat(done)

    def _guided(self, window: Window, latents: Tensor, timestep: Tensor) -> Tensor:
        """With classifier-free guidance in one pass or, where memory is short, in two."""
        if self.conditions.negative_prompt is None or not self._model.ladder.splits_guidance:
            return self._predictor(window, len(latents), "both")(latents, timestep)
        without = self._predictor(window, len(latents), "negative")(latents, timestep)
        wanted = self._predictor(window, len(latents), "prompt")(latents, timestep)
        return without + self.conditions.guidance * (wanted - without)

    def _predictor(self, window: Window, images: int, kind: str) -> Predict:
        key = (window, images, kind, self._model.family.parts.storage)
        if key not in self._predictors:
            conditions = replace(
                self.conditions,
                size=(window.width * self._scale, window.height * self._scale),
                region=self._region(window),
            )
            if kind == "negative" and conditions.negative_prompt is not None:
                conditions = replace(conditions, prompt=conditions.negative_prompt, negative=True)
            if kind != "both":
                conditions = replace(conditions, negative_prompt=None)
            self._predictors[key] = self._model.family.predictor(conditions, images)
        return self._predictors[key]

    def _region(self, window: Window) -> Region | None:
        region = self.conditions.region
        if region is None:
            return None
        return Region(window.of(region.latents), window.of(region.mask), window.of(region.coverage, self._scale))
