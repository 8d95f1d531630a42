"""A model that always predicts right, and how far previews and pictures are from what it knows.

It knows noise levels from the model's training and nothing of the code that it examines: what share of the clean
latents is left at a timestep follows from the betas (or, for flow models, from the timestep alone).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from underpaint_backend.engine.denoise import Step, denoise
from underpaint_backend.engine.families import Family
from underpaint_backend.engine.library import LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, paint_latents
from underpaint_backend.engine.prediction import Space, space_of
from underpaint_backend.engine.schedulers import Schedule


def preview_error(schedule: Schedule, shape: tuple[int, int, int, int], seed: int = 0) -> float:
    """The worst error of any preview, and of the end, where a model with this schedule predicts perfectly.

    The latents have this `shape` [B, C, h, w]. Errors are lengths, as shares of the length of the truth. Schedules
    that end a little short of clean (DDIM as Stable Diffusion configures it) must end at exactly that level of noise.
    The schedule is used up.
    """
    oracle = Oracle(schedule, shape, seed)
    errors: list[float] = []
    generators = [torch.Generator().manual_seed(seed + image) for image in range(shape[0])]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))
    begin = schedule.begin(noise, oracle.x0.float())
    end = denoise(oracle.predict, schedule, begin, generators, lambda step: errors.append(oracle.error(step)))
    errors.append(oracle.error_at_end(end))
    return max(errors)


def painting_error(model: LoadedModel, painting: Painting, seed: int = 0) -> float:
    """The worst error of any preview, and of the end, of a painting of one picture whose denoiser predicts perfectly.

    All runs as for every job, and nothing but the numbers that the network answers is put in: what it is told, how
    latents become tokens and tokens latents, guidance, and what stays around a selection are the family's and the
    loop's own. Errors are lengths, as shares of the length of the truth.
    """
    family, source = model.family, painting.source
    strength = 1.0 if source is None else painting.strength
    noise = family.noise([torch.Generator().manual_seed(painting.seeds[0])], painting.size)
    shape = (1, noise.shape[1], noise.shape[2], noise.shape[3])
    oracle = Oracle(family.schedule(painting.scheduler, painting.steps, strength, painting.size), shape, seed)
    kept, mask = torch.zeros(shape).double(), torch.ones(1, 1, *shape[2:]).double()
    if source is not None and not family.takes_mask:
        scale = painting.size[0] // shape[3]
        cells = source.coverage.reshape(shape[2], scale, shape[3], scale).max((1, 3))
        mask = torch.from_numpy(cells)[None, None].double()
        picture = torch.from_numpy(source.pixels / 127.5 - 1).float().movedim(-1, 0)[None]
        with torch.inference_mode():
            kept = family.encode(picture).double()
    truth = mask * oracle.x0 + (1 - mask) * kept
    errors: list[float] = []
    with perfect(family, oracle, painting), torch.inference_mode():
        observer = Observer(lambda phase: None, lambda step: errors.append(_distance(step.x0, truth)))
        end = paint_latents(model, painting, observer)
    clean, noisy = (float(share) for share in oracle.schedule.level(oracle.evaluations))
    # Schedules that end a little short of clean do so inside of the selection only.
    expected = mask * (clean * oracle.x0 + noisy * oracle.noise) + (1 - mask) * kept
    errors.append(_distance(end, expected))
    return max(errors)


@contextmanager
def perfect(family: Family, oracle: Oracle, painting: Painting) -> Iterator[None]:
    """Within this context the family's denoiser answers what the oracle knows, for all that it is shown."""
    name = "unet" if family.parts.has("unet") else "transformer"
    network: Any = family.parts[name]
    channels, height, width = oracle.x0.shape[1:]
    kind = type(network).__name__
    # FLUX.2 says in two passes, one after the other, what others say in one of twice the batch.
    passes = 2 if kind == "Flux2Transformer2DModel" and family.is_guided(painting.guidance) else 1
    answers: list[Tensor] = []

    def answer(seen: Tensor, timestep: float) -> Tensor:
        """The same in each of the passes of one evaluation."""
        if not answers:
            answers.extend([oracle.predict(seen, timestep)] * passes)
        return answers.pop()

    def unet(sample: Tensor, timestep: Tensor, *_: Any, **told: Any) -> tuple[Tensor]:
        said = answer(sample[:1, :channels], float(timestep))
        return (said.expand(len(sample), -1, -1, -1),)

    def transformer(hidden_states: Tensor, *_: Any, **told: Any) -> tuple[Tensor]:
        level = told["timestep"] if "timestep" in told else _[1]
        side = 2 if kind == "FluxTransformer2DModel" else 1  # cells of a token
        rows, columns = height // side, width // side
        tokens = hidden_states[:1, : rows * columns, : channels * side**2]
        grid = tokens.reshape(rows, columns, channels, side, side)
        said = answer(grid.permute(2, 0, 3, 1, 4).reshape(1, channels, height, width), 1000 * float(level[0]))
        packed = said.reshape(channels, rows, side, columns, side).permute(1, 3, 0, 2, 4)
        output = hidden_states.new_zeros(*hidden_states.shape[:2], channels * side**2)
        output[:, : rows * columns] = packed.reshape(rows * columns, -1)
        return (output,)

    network.forward = unet if name == "unet" else transformer
    try:
        yield
    finally:
        del network.forward
    assert oracle.evaluations == len(oracle.schedule), "the family asked its denoiser more or less often"


def _distance(latents: Tensor, truth: Tensor) -> float:
    """How far latents are from the truth, as a share of its length."""
    if not bool(latents.isfinite().all()):
        return float("inf")
    return float((latents.double() - truth).norm() / truth.norm())


class Oracle:
    """A model that knows the picture `x0` [B, C, h, w] that every run of this schedule leads to."""

    def __init__(self, schedule: Schedule, shape: tuple[int, int, int, int], seed: int) -> None:
        self.schedule = schedule
        self.x0 = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
        self.noise = torch.zeros(shape).double()
        self.evaluations = 0

    def predict(self, seen: Tensor, timestep: Tensor | float) -> Tensor:
        """The perfect answer to what the model sees at `timestep`; call it once for each evaluation, in order."""
        clean, noisy = self._shares(float(timestep))
        self.evaluations += 1
        self.noise = (seen.double() - clean * self.x0) / noisy
        if space_of(self.schedule.scheduler) is Space.FLOW:
            return (self.noise - self.x0).float()
        kind = self.schedule.scheduler.config.get("prediction_type", "epsilon")
        answers = {"epsilon": self.noise, "sample": self.x0, "v_prediction": clean * self.noise - noisy * self.x0}
        return answers[kind].float()

    def error(self, step: Step) -> float:
        """How far a preview is from the truth."""
        return _distance(step.x0, self.x0)

    def error_at_end(self, latents: Tensor) -> float:
        """How far the end of a run is from the truth, or from what is left of it at the schedule's last level."""
        clean, noise = (float(share) for share in self.schedule.level(self.evaluations))
        return _distance(latents, clean * self.x0 + noise * self.noise)

    def _shares(self, timestep: float) -> tuple[float, float]:
        """How much of the clean latents and how much noise the model sees at a timestep."""
        scheduler: Any = self.schedule.scheduler
        if space_of(scheduler) is Space.FLOW:
            sigma = timestep / scheduler.config.num_train_timesteps
            return 1 - sigma, sigma
        kept = scheduler.alphas_cumprod.double().numpy()
        sigmas = np.sqrt((1 - kept) / np.maximum(kept, 1e-12))
        sigma = float(np.interp(timestep, np.arange(len(sigmas)), sigmas))
        if scheduler.config.get("use_karras_sigmas"):
            # The model is told the nearest whole timestep, but sees the level itself.
            clean, noise = (float(share) for share in self.schedule.level(self.evaluations))
            exact = float(np.interp(np.log(noise / clean), np.log(sigmas), np.arange(len(sigmas))))
            if abs(exact - timestep) <= 0.51:
                sigma = noise / clean
        return 1 / np.hypot(1, sigma), sigma / np.hypot(1, sigma)
